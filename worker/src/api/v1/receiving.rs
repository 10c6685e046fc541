//! Receives a task as a form: the part `task` with its JSON, then the part `file` with its song, which is checked and
//! staged while it arrives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::super::app::App;
use super::super::clients::Client;
use super::super::intake::IfDropped;
use super::super::upload::Form;
use super::audio_check::{self, CheckedSong};
use super::intake::{Accepted, Identity, announce, create, stored_input, stored_task, trace, within_limit};
use super::problem::Problem;
use super::request::{NewTask, TaskForm, parse_task};
use super::state::V1;
use crate::faults;
use crate::task_store::{Incoming, StoredTask};
use crate::telemetry::TraceContext;

/// SHA-256 of a song that is being received.
#[derive(Clone, Default)]
struct Checksum(Arc<Mutex<Sha256>>);

impl Checksum {
    fn update(&self, piece: &[u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .update(piece);
    }

    fn finish(&self) -> [u8; 32] {
        let mut checksum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *checksum).finalize().into()
    }
}

/// The part `file`.
struct FilePart<'f> {
    file_name: Option<String>,
    song: BoxStream<'f, Result<Bytes, Problem>>,
    /// Complete once the song was read.
    checksum: Checksum,
}

/// A form whose song is staged.
struct Received {
    new: NewTask,
    file_name: Option<String>,
    duration: Option<Duration>,
    checksum: Checksum,
    trace: TraceContext,
}

/// Receives a form and accepts its task. Nothing is left of a form that is not complete. The song of a repeated request
/// is only compared. None if the earlier task with the same ID was erased meanwhile.
pub(super) async fn receive(
    app: &App,
    v1: &V1,
    client: &Client,
    identity: &Identity,
    request: Request,
) -> Result<Option<Accepted>, Problem> {
    let existing = match identity.is_repeatable {
        true => v1.store.task(&client.name, &identity.id).await?,
        false => None,
    };
    match existing {
        Some(existing) => compare(app, v1, client, existing, request).await.map(Some),
        None => {
            let receiving = receive_new(app, v1, client, identity, request);
            within_limit(v1, client, &identity.id, receiving).await
        }
    }
}

/// Compares a repeated request with the task that the first one created.
async fn compare(
    app: &App,
    v1: &V1,
    client: &Client,
    existing: StoredTask,
    request: Request,
) -> Result<Accepted, Problem> {
    let _slot = app.intake.slot(&client.name)?;
    let mut form = Form::from_request(request, app.settings.input).await?;
    let new = task_part(app, v1, &mut form).await?;
    let FilePart { song, checksum, .. } = file_part(&mut form).await?;
    drain(song).await?;
    end_of_form(&mut form).await?;
    match new.fingerprint(Some(&checksum.finish())) == existing.fingerprint {
        true => Ok(Accepted::Replayed(existing)),
        false => Err(Problem::idempotency_key_reused()),
    }
}

async fn receive_new(
    app: &App,
    v1: &V1,
    client: &Client,
    identity: &Identity,
    request: Request,
) -> Result<Option<Accepted>, Problem> {
    let slot = app.intake.slot(&client.name)?;
    let trace = trace(request.headers());
    let mut form = Form::from_request(request, app.settings.input).await?;
    let new = task_part(app, v1, &mut form).await?;
    let FilePart {
        file_name,
        song,
        checksum,
    } = file_part(&mut form).await?;
    let CheckedSong { duration, song } = audio_check::check(song, v1.settings.max_input_seconds).await?;
    let staging = app.intake.stage(slot, identity.id.clone(), song, IfDropped::Kept);
    let staged = staging.await?;
    let received = Received {
        new,
        file_name,
        duration,
        checksum,
        trace,
    };
    match announce_received(v1, client, identity, &mut form, received).await {
        // From here on the song belongs to a task that may be stored, also if that fails.
        Ok((task, incoming)) => create(v1, client, identity, task, incoming).await,
        Err(problem) => {
            // No other request stores a task with this ID: the claim on it is released afterwards.
            staged.remove().await;
            Err(problem)
        }
    }
}

async fn announce_received(
    v1: &V1,
    client: &Client,
    identity: &Identity,
    form: &mut Form,
    received: Received,
) -> Result<(StoredTask, Incoming), Problem> {
    end_of_form(form).await?;
    faults::point("song_received").await;
    let Received {
        new,
        file_name,
        duration,
        checksum,
        trace,
    } = received;
    let fingerprint = new.fingerprint(Some(&checksum.finish()));
    let input = stored_input(&new.input, file_name.as_deref(), duration);
    let task = stored_task(client, identity.id.clone(), &new, fingerprint, input, trace);
    let incoming = announce(v1, &task).await?;
    Ok((task, incoming))
}

async fn task_part(app: &App, v1: &V1, form: &mut Form) -> Result<NewTask, Problem> {
    let field = form.next().await?;
    let field = field.filter(|field| field.name() == "task");
    let field = field
        .ok_or_else(|| Problem::invalid_request("the first part of the form must be `task`, with JSON"))?;
    let json = field.text().await?;
    let new = parse_task(json.as_bytes(), TaskForm::Multipart, v1.formats().await)?;
    new.check_urls(&app.outbound)?;
    Ok(new)
}

async fn file_part(form: &mut Form) -> Result<FilePart<'_>, Problem> {
    let file = form.next().await?;
    let file = file.filter(|field| field.name() == "file");
    let file = file.ok_or_else(|| {
        Problem::invalid_request("the second part of the form must be `file`, with the song")
    })?;
    let file_name = file.file_name().map(str::to_owned);
    let checksum = Checksum::default();
    let hashing = checksum.clone();
    let song = file.song().map_err(Problem::from);
    Ok(FilePart {
        file_name,
        song: song.inspect_ok(move |piece| hashing.update(piece)).boxed(),
        checksum,
    })
}

async fn drain(mut song: BoxStream<'_, Result<Bytes, Problem>>) -> Result<(), Problem> {
    while let Some(piece) = song.next().await {
        piece?;
    }
    Ok(())
}

async fn end_of_form(form: &mut Form) -> Result<(), Problem> {
    match form.next().await? {
        Some(_) => Err(Problem::invalid_request(
            "the form must have no parts after `file`",
        )),
        None => Ok(()),
    }
}
