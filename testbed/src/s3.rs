//! A real S3 server over a temporary folder, with a small client.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::{Folder, Parts, Process, background, ports};

const START: Duration = Duration::from_secs(30);
const REGION: &str = "us-east-1";
const ACCESS_KEY: &str = "testbed-access";
const SECRET_KEY: &str = "testbed-secret";

/// versitygw on a free port, with its objects in a temporary folder; it listens without TLS.
///
/// The folder must lie on a file system with extended attributes, as ext4 and recent tmpfs are.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    client: Client,
    process: Process,
    folder: Folder,
}

/// An object, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size, in bytes.
    pub size: u64,
}

impl S3Server {
    /// The one that all tests of this process share: use buckets of your own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<S3Server> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not start, with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// The same on a free port of another address of this machine, such as [`crate::Node::host_address`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_at(address: Ipv4Addr) -> Result<Self> {
        let parts = Parts::locate()?;
        let folder = Folder::new()?;
        let objects = folder.subfolder("objects")?;
        let address = SocketAddr::from((address, ports::free_at(address)?));
        let mut command = Command::new(&parts.versitygw);
        command
            .arg("--port")
            .arg(address.to_string())
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION])
            // Connections are kept, as real servers do; its default closes each.
            .args(["--keep-alive", "--quiet", "posix"])
            .arg(objects);
        let log = folder.join("versitygw.log");
        let process = Process::start("versitygw", &command, &log, &log)?;
        let server = Self {
            address,
            client: client(address),
            process,
            folder,
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

    /// The server as a process: to freeze it, for one.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A client of its own for a test that needs more than the methods here; it lives as long as the test's runtime.
    pub fn client(&self) -> Client {
        client(self.address)
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_bucket(&self, bucket: &str) -> Result<()> {
        let request = self.client.create_bucket().bucket(bucket).send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot make bucket {bucket}"))
    }

    /// Takes a bucket away, with all its objects, until it is [put back](Self::return_bucket): it does not exist meanwhile.
    ///
    /// # Errors
    /// When it is not there.
    pub fn take_bucket(&self, bucket: &str) -> Result<()> {
        let objects = self.folder.join("objects");
        std::fs::rename(objects.join(bucket), self.folder.join(bucket))
            .with_context(|| format!("cannot take bucket {bucket} away"))
    }

    /// Puts a bucket back that was [taken away](Self::take_bucket).
    ///
    /// # Errors
    /// When it was not.
    pub fn return_bucket(&self, bucket: &str) -> Result<()> {
        let objects = self.folder.join("objects");
        std::fs::rename(self.folder.join(bucket), objects.join(bucket))
            .with_context(|| format!("cannot put bucket {bucket} back"))
    }

    /// Lets everybody read the objects of a bucket by their links, as behind a content network.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn let_everybody_read(&self, bucket: &str) -> Result<()> {
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
            .with_context(|| format!("cannot let everybody read {bucket}"))
    }

    /// Stores an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> Result<()> {
        let body = ByteStream::from(body.into());
        let request = self.client.put_object().bucket(bucket).key(key).body(body).send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot store {bucket}/{key}"))
    }

    /// Reads an object; `None` where there is none.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>> {
        let request = self.client.get_object().bucket(bucket).key(key).send();
        background::run(async move {
            match request.await {
                Ok(object) => {
                    let body = object.body.collect().await.context("the body broke off")?;
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

    /// The content type of an object; `None` where there is no such object or it has none.
    ///
    /// # Errors
    /// When the server refuses.
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
        .with_context(|| format!("cannot look at {bucket}/{key}"))
    }

    /// Removes an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        let request = self.client.delete_object().bucket(bucket).key(key).send();
        background::run(async move { request.await.map(drop).map_err(readable) })
            .await
            .with_context(|| format!("cannot remove {bucket}/{key}"))
    }

    /// All objects whose key starts with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// When the server refuses.
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

    /// Multipart uploads that were begun and neither completed nor aborted: their keys.
    ///
    /// # Errors
    /// When the server refuses.
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

/// The SDK's errors say nothing by themselves; their sources do.
fn readable<E: std::error::Error>(error: E) -> anyhow::Error {
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}
