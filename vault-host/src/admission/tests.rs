use super::*;

fn limits() -> Limits {
    Limits {
        connections: 2,
        streams: 1,
        requests_per_second: 1000,
        requests_per_second_per_connection: 2,
        challenges_per_second_per_connection: 1,
    }
}

fn release() -> Method {
    Method::of("/weightvault.v1.Vault/ReleaseKeys")
}

fn code<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
    result.unwrap_err().code
}

/// What a call has once its request is there.
fn begin(admission: &Admission, method: Method, connection: Option<&Connection>) -> Result<Place, Refused> {
    admission.admit(method, connection)?;
    admission.place(method.kind, connection)
}

#[test]
fn a_bucket_gives_twice_its_rate_at_once_and_its_rate_after_that() {
    let bucket = Bucket::new(10, REQUESTS_AT_ONCE);
    let start = Instant::now();
    assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 20);
    let later = start + Duration::from_millis(500);
    assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 5);
    assert!(!bucket.take(start), "a clock that goes back gives nothing");
}

#[test]
fn one_connection_cannot_use_up_the_rate_of_others() {
    let admission = Admission::new(&limits());
    let (greedy, other) = (admission.connection().unwrap(), admission.connection().unwrap());
    for _ in 0..4 {
        begin(&admission, release(), Some(&greedy)).unwrap();
    }
    assert_eq!(code(begin(&admission, release(), Some(&greedy))), "busy-connection-rate");
    begin(&admission, release(), Some(&other)).unwrap();
}

#[test]
fn one_connection_cannot_fill_the_keepers_table_with_challenges() {
    let admission = Admission::new(&Limits { requests_per_second_per_connection: 1000, ..limits() });
    let (greedy, other) = (admission.connection().unwrap(), admission.connection().unwrap());
    let challenge = Method::of("/weightvault.v1.Vault/GetChallenge");
    for _ in 0..CHALLENGES_AT_ONCE {
        begin(&admission, challenge, Some(&greedy)).unwrap();
    }
    assert_eq!(code(begin(&admission, challenge, Some(&greedy))), "busy-connection-challenges");
    begin(&admission, release(), Some(&greedy)).unwrap();
    begin(&admission, challenge, Some(&other)).unwrap();
}

#[test]
fn the_rate_of_everyone_is_bounded() {
    let admission = Admission::new(&Limits { requests_per_second: 1, ..limits() });
    for _ in 0..2 {
        begin(&admission, release(), None).unwrap();
    }
    assert_eq!(code(begin(&admission, release(), None)), "busy-rate");
    begin(&admission, Method::of("/grpc.health.v1.Health/Check"), None).unwrap();
}

#[tokio::test]
async fn streams_have_places_of_their_own_and_wait_for_them_in_turn() {
    let admission = Arc::new(Admission::new(&limits()));
    let fetch = Method::of("/weightvault.v1.Vault/FetchUnits");
    let upload = Method::of("/weightvault.v1.Provision/UploadUnit");
    let queued = async |method: Method| {
        let mut place = begin(&admission, method, None).unwrap();
        let queue = admission.queue(method.kind, &mut place);
        tokio::time::timeout(Duration::from_millis(100), queue).await.map(|work| (place, work.unwrap()))
    };
    let connection = admission.connection().unwrap();
    let first = queued(fetch).await.unwrap();
    assert!(!connection.is_waited_for() && !admission.is_wanted(Kind::Stream, true));
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.queue(Kind::Upload, &mut Place::default()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(connection.is_waited_for(), "the second waits, and others see that");
    assert!(admission.is_wanted(Kind::Stream, false) && !admission.is_wanted(Kind::Call, true));
    waiting.abort();
    let _ = waiting.await;
    assert!(!connection.is_waited_for());
    queued(release()).await.unwrap();
    drop(first);
    queued(upload).await.unwrap();
}

#[tokio::test]
async fn evidence_is_asked_for_one_by_one_and_seldom_whoever_asks() {
    let admission = Arc::new(Admission::new(&limits()));
    let evidence = Method::of("/weightvault.v1.Provision/GetKeeperEvidence").kind;
    let first = admission.queue(evidence, &mut Place::default()).await.unwrap().unwrap();
    let goes_on = first.clone();
    let second = tokio::spawn({
        let admission = admission.clone();
        async move { admission.queue(evidence, &mut Place::default()).await.map(drop) }
    });
    drop(first);
    tokio::task::yield_now().await;
    assert!(!second.is_finished(), "somebody works on the first still");
    drop(goes_on);
    second.await.unwrap().unwrap();
    let now = Instant::now();
    while admission.evidence_rate.take(now) {}
    assert_eq!((0..100).filter(|_| admission.evidence_rate.take(now + 10 * EVIDENCE_EVERY)).count(), 10);
    assert_eq!((0..100).filter(|_| admission.evidence_rate.take(now + 1000 * EVIDENCE_EVERY)).count(), 16);
}

#[tokio::test]
async fn memory_that_an_answer_does_not_need_is_others_and_who_waits_for_it_is_seen() {
    let admission = Arc::new(Admission::new(&limits()));
    let all = admission.reply_memory(u64::from(REPLY_BYTES_MAX)).await.unwrap();
    let waiting = tokio::spawn({
        let admission = admission.clone();
        async move { admission.reply_memory(10).await }
    });
    tokio::task::yield_now().await;
    assert!(admission.is_wanted(Kind::Call, true) && !admission.is_wanted(Kind::Call, false));
    all.shrink_to(REPLY_BYTES_MAX as usize - 10);
    waiting.await.unwrap().unwrap();
    assert!(!admission.is_wanted(Kind::Call, true));
}

#[test]
fn calls_under_way_are_bounded() {
    let limits = Limits { requests_per_second: 10_000, ..limits() };
    let admission = Admission::new(&limits);
    let held: Vec<_> = (0..CALLS_MAX).map(|_| begin(&admission, release(), None).unwrap()).collect();
    assert_eq!(code(begin(&admission, release(), None)), "busy-calls");
    drop(held);
    begin(&admission, release(), None).unwrap();
}

#[test]
fn watches_are_bounded_by_connection_and_together_and_take_no_place_of_calls() {
    let limits =
        Limits { connections: 100, requests_per_second: 10_000, requests_per_second_per_connection: 1000, ..limits() };
    let admission = Admission::new(&limits);
    let watch = Method::of("/weightvault.v1.Vault/WatchLease");
    let mut held = Vec::new();
    for _ in 0..WATCHES_MAX / WATCHES_PER_CONNECTION_MAX {
        let connection = admission.connection().unwrap();
        let places = (0..WATCHES_PER_CONNECTION_MAX).map(|_| begin(&admission, watch, Some(&connection)).unwrap());
        held.push((places.collect::<Vec<_>>(), connection));
        let (_, connection) = held.last().unwrap();
        assert_eq!(code(begin(&admission, watch, Some(connection))), "busy-connection-watches");
    }
    let other = admission.connection().unwrap();
    assert_eq!(code(begin(&admission, watch, Some(&other))), "busy-watches");
    begin(&admission, release(), Some(&other)).unwrap();
    held.pop();
    begin(&admission, watch, Some(&other)).unwrap();
}

#[test]
fn connections_are_bounded() {
    let admission = Admission::new(&limits());
    let held = [admission.connection().unwrap(), admission.connection().unwrap()];
    assert!(admission.connection().is_none());
    drop(held);
    assert!(admission.connection().is_some());
}

#[test]
fn two_hundred_releases_at_once_pass_on_one_connection() {
    let admission = Admission::new(&Limits::default());
    let connection = admission.connection().unwrap();
    let challenge = Method::of("/weightvault.v1.Vault/GetChallenge");
    for method in [challenge, release()] {
        let places: Vec<_> = (0..200).map(|_| begin(&admission, method, Some(&connection)).unwrap()).collect();
        assert_eq!(places.len(), 200);
    }
}

#[test]
fn health_is_watched_by_so_many_of_one_connection() {
    let admission = Admission::new(&Limits { requests_per_second_per_connection: 1000, ..limits() });
    let health = Method::of("/grpc.health.v1.Health/Watch");
    let (greedy, modest) = (admission.connection().unwrap(), admission.connection().unwrap());
    let held: Vec<_> =
        (0..OTHERS_PER_CONNECTION_MAX).map(|_| begin(&admission, health, Some(&greedy)).unwrap()).collect();
    assert_eq!(code(begin(&admission, health, Some(&greedy))), "busy-connection-others");
    begin(&admission, health, Some(&modest)).unwrap();
    drop(held);
    begin(&admission, health, Some(&greedy)).unwrap();
}

#[test]
fn the_connection_that_has_had_no_call_for_longest_makes_room() {
    let admission = Admission::new(&limits());
    let (first, second) = (admission.connection().unwrap(), admission.connection().unwrap());
    assert!(!admission.close_idlest(Instant::now()), "both were used a moment ago");
    let later = Instant::now() + Duration::from_secs(60);
    let _call = first.begin();
    assert!(admission.close_idlest(later));
    assert!(!first.is_closed() && second.is_closed());
    assert!(!admission.close_idlest(later), "the other has a call");
}
