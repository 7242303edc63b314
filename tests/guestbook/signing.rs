use loopless_host::Harness;
use loopless_host::store::{Memory, Observed, Operation, Store};

#[tokio::test(start_paused = true)]
async fn a_signature_is_kept_though_the_store_fails_once() {
    let store = Observed::new(Memory::default());
    store.set("ada", b"I was first.").await.unwrap();
    let host = Harness::builder()
        .package("tests/guestbook") // The package under test, without this.
        .store(store.clone())
        .variable("greeting", "Welcome")
        .start()
        .await
        .unwrap();

    store.fail_next(1, Operation::Set, "the disk is full");
    let before = tokio::time::Instant::now();
    let signed = host.post("/grace", "Me too.").await;
    assert_eq!(signed.status(), 201);
    assert_eq!(before.elapsed().as_secs(), 1); // Of virtual time.

    let kept = store.get("grace").await.unwrap();
    assert_eq!(kept.as_deref(), Some(&b"Me too."[..]));
    let page = host.get("/").await;
    assert_eq!(page.body(), "Welcome\nada: I was first.\ngrace: Me too.\n");
}
