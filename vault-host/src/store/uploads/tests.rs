use super::*;

fn uploads(keep_free: u64) -> (tempfile::TempDir, Uploads) {
    let dir = tempfile::tempdir().unwrap();
    let uploads = Uploads::open(dir.path().join("uploads"), keep_free).unwrap();
    (dir, uploads)
}

fn unit(manifest: u8, content: &[u8]) -> UnitUpload {
    UnitUpload {
        manifest: Sha256Digest::from_bytes([manifest; 32]),
        sealed: Sha256Digest::of(content),
        bytes: content.len() as u64,
    }
}

#[test]
fn a_full_part_that_was_never_checked_is_not_complete() {
    let (_dir, uploads) = uploads(0);
    let unit = unit(1, b"sealed");
    // The host died between the last byte and the check.
    let mut upload = uploads.begin(unit, 0).unwrap();
    upload.write(b"sealed").unwrap();
    drop(upload);
    assert_eq!(uploads.stored(&unit).unwrap(), 5);
    assert!(!uploads.is_complete(&unit).unwrap());
    let mut upload = uploads.begin(unit, 5).unwrap();
    upload.write(b"d").unwrap();
    assert_eq!(Box::new(upload).finish().unwrap(), 6);
    assert!(uploads.is_complete(&unit).unwrap());
}

#[test]
fn one_unit_has_one_writer_at_a_time() {
    let (_dir, uploads) = uploads(0);
    let unit = unit(1, b"sealed");
    let first = uploads.begin(unit, 0).unwrap();
    assert!(matches!(uploads.begin(unit, 0), Err(StoreError::UploadBusy)));
    drop(first);
    assert!(matches!(uploads.begin(unit, 3), Err(StoreError::UploadOffset { offset: 3, stored: 0 })));
    uploads.begin(unit, 0).unwrap();
}

/// Two hosts that have mounted one directory: what one writes, the other neither cuts nor moves away.
#[test]
fn a_unit_that_another_process_writes_is_busy_and_then_complete() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Uploads::open_apart(dir.path().join("uploads"), dir.path().join("units"), 0).unwrap();
    let (one, two) = (open(), open());
    let unit = unit(1, b"sealed");
    let mut first = one.begin(unit, 0).unwrap();
    assert!(matches!(two.begin(unit, 0), Err(StoreError::UploadBusy)));
    first.write(b"sealed").unwrap();
    assert_eq!(Box::new(first).finish().unwrap(), 6);
    assert!(matches!(two.begin(unit, 0), Err(StoreError::UploadOffset { offset: 0, stored: 6 })));
    two.forget(&unit.manifest).unwrap();
    assert_eq!(fs::read(two.complete(&unit.manifest, &unit.sealed)).unwrap(), b"sealed");
}

/// Whoever removes a part that somebody writes, by hand or as abandoned, loses that upload and no other.
#[test]
fn a_part_that_was_removed_meanwhile_is_not_taken_for_the_one_in_its_place() {
    let (_dir, uploads) = uploads(0);
    let unit = unit(1, b"sealed");
    let mut first = uploads.begin(unit, 0).unwrap();
    first.write(b"sealed").unwrap();
    fs::remove_file(uploads.part(&unit)).unwrap();
    fs::write(uploads.part(&unit), b"other").unwrap();
    assert!(matches!(Box::new(first).finish(), Err(StoreError::UploadBusy)));
    assert!(!uploads.is_complete(&unit).unwrap());
}

#[test]
fn the_same_digest_with_another_length_is_another_upload() {
    let (_dir, uploads) = uploads(0);
    let right = unit(1, b"sealed");
    let wrong = UnitUpload { bytes: 5, ..right };
    let mut upload = uploads.begin(wrong, 0).unwrap();
    upload.write(b"seal").unwrap();
    Box::new(upload).finish().unwrap();
    assert_eq!((uploads.stored(&wrong).unwrap(), uploads.stored(&right).unwrap()), (4, 0));
}

#[test]
fn uploads_that_would_use_the_room_of_the_log_are_refused() {
    let (_dir, uploads) = uploads(u64::MAX / 2);
    let full = uploads.begin(unit(1, b"sealed"), 0).err().unwrap();
    assert_eq!(full.code(), "uploads-full");
    assert!(full.to_string().contains("which leave `keep_free_mib` free for the log"), "{full}");
}

#[test]
fn models_in_upload_are_bounded_and_one_of_which_nothing_came_makes_room() {
    let (_dir, uploads) = uploads(0);
    let begin = |manifest: u8, bytes: &[u8]| {
        let mut upload = uploads.begin(unit(manifest, b"sealed"), 0).unwrap();
        upload.write(bytes).unwrap();
        Box::new(upload).finish().unwrap();
    };
    (0..=255).for_each(|n| begin(n, b"some"));
    let another = |n: u8| UnitUpload { manifest: Sha256Digest::of(&[n]), ..unit(0, b"sealed") };
    assert!(matches!(uploads.begin(another(1), 0), Err(StoreError::TooManyUploads)));
    uploads.begin(unit(7, b"another unit of a model that is here"), 0).unwrap();

    // One of which nothing came, and one that somebody is at.
    for n in [3, 4] {
        uploads.forget(&unit(n, b"").manifest).unwrap();
        drop(uploads.begin(unit(n, b"sealed"), 0).unwrap());
    }
    let at = uploads.begin(unit(4, b"sealed"), 0).unwrap();
    let new = uploads.begin(another(1), 0).unwrap();
    assert!(!uploads.manifests().unwrap().contains(&unit(3, b"").manifest));
    assert!(matches!(uploads.begin(another(2), 0), Err(StoreError::TooManyUploads)));
    drop(at);
    uploads.begin(another(2), 0).unwrap();
    drop(new);

    // And one of which little came, long ago.
    let path = uploads.part(&unit(5, b"sealed"));
    for path in [path.parent().unwrap(), &path] {
        let before = SystemTime::now() - 2 * LET_BE;
        File::open(path).unwrap().set_modified(before).unwrap();
    }
    let held: Vec<_> = [1, 2].map(|n| uploads.begin(another(n), 0).unwrap()).into();
    uploads.begin(another(3), 0).unwrap();
    assert!(!uploads.manifests().unwrap().contains(&unit(5, b"").manifest));
    drop(held);
}

#[test]
fn units_of_a_model_are_bounded() {
    let (_dir, uploads) = uploads(0);
    drop(uploads.begin(unit(1, b"first"), 0).unwrap());
    let dir = uploads.model_dir(&unit(1, b"").manifest);
    let fill = |n: usize| fs::write(dir.join(format!("{n}.part")), b"").unwrap();
    (1..UNITS_MAX).for_each(fill);
    uploads.counts.forget(&unit(1, b"").manifest);
    assert!(matches!(uploads.begin(unit(1, b"one more"), 0), Err(StoreError::TooManyUnits)));
    // Those that are there go on, and there is room again where one has gone.
    drop(uploads.begin(unit(1, b"first"), 0).unwrap());
    fs::remove_file(dir.join("1.part")).unwrap();
    drop(uploads.begin(unit(1, b"one more"), 0).unwrap());
    assert!(matches!(uploads.begin(unit(1, b"yet one more"), 0), Err(StoreError::TooManyUnits)));
}

#[test]
fn one_that_can_not_be_removed_keeps_no_other() {
    let tried = std::cell::Cell::new(0);
    let removed = each_by_itself([1, 2, 3], |n| {
        tried.set(tried.get() + 1);
        if n == 2 { Err(StoreError::UploadBusy) } else { Ok(true) }
    });
    assert!(matches!(removed, Err(StoreError::UploadBusy)) && tried.get() == 3);
    assert_eq!(each_by_itself([true, false, true], Ok).unwrap(), 2);
}

#[test]
fn only_what_nobody_goes_on_with_is_removed() {
    let (_dir, uploads) = uploads(0);
    let busy = uploads.begin(unit(1, b"sealed"), 0).unwrap();
    drop(uploads.begin(unit(2, b"sealed"), 0).unwrap());
    let now = SystemTime::now();
    assert_eq!(uploads.remove_abandoned(now - Duration::from_secs(60)).unwrap(), 0);
    assert_eq!(uploads.remove_abandoned(now + Duration::from_secs(60)).unwrap(), 1);
    assert_eq!(uploads.manifests().unwrap(), [Sha256Digest::from_bytes([1; 32])]);
    drop(busy);
}
