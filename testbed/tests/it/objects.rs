//! S3, as used by tests.

use separation_testbed::S3Server;

#[tokio::test]
async fn objects_are_stored_listed_read_and_removed() {
    let s3 = S3Server::shared().await.unwrap();
    s3.create_bucket("stems").await.unwrap();
    assert_eq!(s3.get("stems", "a/b.wav").await.unwrap(), None);
    s3.put("stems", "a/b.wav", "sound").await.unwrap();
    s3.put("stems", "c.wav", vec![7; 3]).await.unwrap();
    assert_eq!(s3.get("stems", "a/b.wav").await.unwrap().unwrap(), "sound");
    let listed = s3.list("stems", "").await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|object| (object.key.as_str(), object.size))
        .collect();
    assert_eq!(listed, [("a/b.wav", 5), ("c.wav", 3)]);
    assert_eq!(s3.list("stems", "a/").await.unwrap().len(), 1);
    s3.delete("stems", "c.wav").await.unwrap();
    assert_eq!(s3.get("stems", "c.wav").await.unwrap(), None);
    assert_eq!(s3.content_type("stems", "c.wav").await.unwrap(), None);
    assert!(s3.content_type("stems", "a/b.wav").await.unwrap().is_some());
    assert!(s3.get("no-such-bucket", "x").await.is_err());
    assert_eq!(s3.unfinished_uploads("stems").await.unwrap(), [""; 0]);
}

#[test]
fn the_shared_server_serves_one_test_after_another() {
    for bucket in ["first-runtime", "second-runtime"] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let s3 = S3Server::shared().await.unwrap();
            s3.create_bucket(bucket).await.unwrap();
            s3.put(bucket, "key", "value").await.unwrap();
        });
    }
}
