//! A real S3 server over a temporary directory, with a small client.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::{Components, Process, Sts, TempDirectory, background, ports};

const START: Duration = Duration::from_secs(30);
const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "testbed-access";
const SECRET_KEY: &str = "testbed-secret";

/// versitygw on a free port, with its objects in a temporary directory; it listens without TLS.
///
/// The directory's file system must support extended attributes, as ext4 and recent tmpfs do.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    client: Client,
    process: Process,
    directory: TempDirectory,
}

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its object key.
    pub key: String,
    /// Its size, in bytes.
    pub size: u64,
}

impl S3Server {
    /// The server shared by all tests of this process: use your own buckets.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<S3Server> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a server and waits until it responds.
    ///
    /// # Errors
    /// If it is not installed or does not start, with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same on a free port of another address of this machine, such as [`crate::Node::host_address`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(address: Ipv4Addr) -> Result<Self> {
        Self::launch(address, None).await
    }

    /// The same, for a server that also accepts the temporary credentials of `sts`, and refuses them once they have
    /// expired.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_trusting(address: Ipv4Addr, sts: &Sts) -> Result<Self> {
        Self::launch(address, Some(sts)).await
    }

    async fn launch(address: Ipv4Addr, sts: Option<&Sts>) -> Result<Self> {
        let components = Components::locate()?;
        let directory = TempDirectory::new()?;
        let objects = directory.subdirectory("objects")?;
        let address = SocketAddr::from((address, ports::free_at(address)?));
        let mut command = Command::new(&components.versitygw);
        command
            .arg("--port")
            .arg(address.to_string())
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION])
            // Connections are kept alive, as by real servers; its default closes each one.
            .args(["--keep-alive", "--quiet"]);
        if let Some(sts) = sts {
            command.arg("--iam-standalone-endpoint").arg(sts.socket());
        }
        command.arg("posix").arg(objects);
        let log = directory.join("versitygw.log");
        let process = Process::start("versitygw", &command, &log, &log)?;
        let server = Self {
            address,
            client: client(address),
            process,
            directory,
        };
        server.wait_until_it_listens().await?;
        Ok(server)
    }

    async fn wait_until_it_listens(&self) -> Result<()> {
        let listens = async {
            while TcpStream::connect(self.address).await.is_err() {
                if let Some(code) = self.process.exit_code() {
                    anyhow::bail!("versitygw ended with {code}{}", self.process.log_end());
                }
                tokio::time::sleep(crate::eventually::POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(START, listens).await.with_context(|| {
            format!(
                "versitygw does not listen after {START:?}{}",
                self.process.log_end()
            )
        })?
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for `S3_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its region, for `AWS_REGION`.
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// The access key, for `AWS_ACCESS_KEY_ID`.
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret key, for `AWS_SECRET_ACCESS_KEY`.
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// The server's process, for example to freeze it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A separate client, for tests that need more than these methods; it lives as long as the test's
    /// runtime.
    pub fn client(&self) -> Client {
        client(self.address)
    }

    /// Creates a bucket.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let request = self.client.create_bucket().bucket(bucket).send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot create bucket {bucket}"))
    }

    /// Hides a bucket with all its objects until it is [restored](Self::restore_bucket); meanwhile it does not
    /// exist.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn hide_bucket(&self, bucket: &str) -> Result<()> {
        let objects = self.directory.join("objects");
        std::fs::rename(objects.join(bucket), self.directory.join(bucket))
            .with_context(|| format!("cannot hide bucket {bucket}"))
    }

    /// Restores a bucket that was [hidden](Self::hide_bucket).
    ///
    /// # Errors
    /// If it was not hidden.
    pub fn restore_bucket(&self, bucket: &str) -> Result<()> {
        let objects = self.directory.join("objects");
        std::fs::rename(self.directory.join(bucket), objects.join(bucket))
            .with_context(|| format!("cannot restore bucket {bucket}"))
    }

    /// Makes the objects of a bucket publicly readable by URL, as behind a CDN.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn make_public(&self, bucket: &str) -> Result<()> {
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:GetObject",
                "Resource": format!("arn:aws:s3:::{bucket}/*"),
            }],
        });
        let policy = policy.to_string();
        let request = self
            .client
            .put_bucket_policy()
            .bucket(bucket)
            .policy(policy)
            .send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot make bucket {bucket} publicly readable"))
    }

    /// Stores an object.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> Result<()> {
        let body = ByteStream::from(body.into());
        let request = self.client.put_object().bucket(bucket).key(key).body(body).send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot store {bucket}/{key}"))
    }

    /// Reads an object; `None` if it does not exist.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>> {
        let request = self.client.get_object().bucket(bucket).key(key).send();
        background::run(async move {
            match request.await {
                Ok(object) => {
                    let body = object.body.collect().await.context("the body is incomplete")?;
                    Ok(Some(body.into_bytes()))
                }
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|error| error.is_no_such_key()) =>
                {
                    Ok(None)
                }
                Err(error) => Err(readable(error)),
            }
        })
        .await
        .with_context(|| format!("cannot read {bucket}/{key}"))
    }

    /// The content type of an object; `None` if the object does not exist or has none.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn content_type(&self, bucket: &str, key: &str) -> Result<Option<String>> {
        let request = self.client.head_object().bucket(bucket).key(key).send();
        background::run(async move {
            match request.await {
                Ok(object) => Ok(object.content_type),
                Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
                Err(error) => Err(readable(error)),
            }
        })
        .await
        .with_context(|| format!("cannot read the metadata of {bucket}/{key}"))
    }

    /// Removes an object.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(bucket).key(key).send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot remove {bucket}/{key}"))
    }

    /// Sets the time at which an object was last written.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn set_modified(&self, bucket: &str, key: &str, time: SystemTime) -> Result<()> {
        let file = self.directory.join("objects").join(bucket).join(key);
        std::fs::File::open(&file)
            .and_then(|file| file.set_modified(time))
            .with_context(|| format!("cannot change the time of {bucket}/{key}"))
    }

    /// All objects whose key starts with `prefix`, sorted by key.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<Object>> {
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(bucket)
            .prefix(prefix)
            .into_paginator()
            .send();
        background::run(async move {
            let mut objects = Vec::new();
            while let Some(page) = pages.next().await {
                for object in page.map_err(readable)?.contents.unwrap_or_default() {
                    objects.push(Object {
                        key: object.key.unwrap_or_default(),
                        size: u64::try_from(object.size.unwrap_or_default()).unwrap_or_default(),
                    });
                }
            }
            Ok(objects)
        })
        .await
        .with_context(|| format!("cannot list {bucket}"))
    }

    /// Object keys of multipart uploads that were neither completed nor aborted.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn unfinished_uploads(&self, bucket: &str) -> Result<Vec<String>> {
        let request = self.client.list_multipart_uploads().bucket(bucket).send();
        background::run(async move {
            let uploads = request.await.map_err(readable)?.uploads.unwrap_or_default();
            Ok(uploads.into_iter().filter_map(|upload| upload.key).collect())
        })
        .await
        .with_context(|| format!("cannot list the uploads of {bucket}"))
    }
}

fn client(address: SocketAddr) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(format!("http://{address}"))
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "testbed"))
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

/// The SDK's errors have no useful text of their own; their sources do.
fn readable<E: std::error::Error>(error: E) -> anyhow::Error {
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}
