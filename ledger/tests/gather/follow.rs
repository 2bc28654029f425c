//! Two keepers of one log: what each takes of the other, and what becomes of it where they do not agree.

use ledger::release_log::OpenError;

use super::*;

/// Two that have opened the same log: the first one has started a run since, the second has not.
fn two() -> (World, Log, Log) {
    let (mut world, mut first) = World::started();
    let mut second = world.restart().unwrap();
    let newest = newest(&world);
    first.follow(&behind(&world, 1), newest, &mut world).unwrap();
    assert_eq!(first.head(), second.head());
    grant(&mut world, &mut second).unwrap();
    (world, first, second)
}

fn newest(world: &World) -> ledger::release_log::Newest {
    verifier().newest(world.published.last().unwrap(), "").unwrap().unwrap()
}

/// The entries from this index on.
fn behind(world: &World, first: u64) -> Vec<Vec<u8>> {
    world.entries[first as usize..].to_vec()
}

/// What a keeper has signed and no witness was asked about.
fn proposed(head: Checkpoint) -> String {
    let text = log_key().checkpoint_text(&head);
    let signature: [u8; 64] = pair(1).sign(text.as_bytes()).as_ref().try_into().unwrap();
    log_key().signed(head, &signature).unwrap().note().to_owned()
}

#[test]
fn one_goes_on_from_what_the_other_committed() {
    let (mut world, mut first, mut second) = two();
    let (own, newest) = (first.head().size, newest(&world));
    assert_eq!(newest.checkpoint(), second.head());
    first.follow(&behind(&world, own), newest, &mut world).unwrap();
    assert_eq!((first.head(), first.checkpoint()), (second.head(), second.checkpoint()));
    // And back again, with proofs of what either wrote.
    let proof = grant(&mut world, &mut first).unwrap();
    let (own, newest) = (second.head().size, self::newest(&world));
    second.follow(&behind(&world, own), newest, &mut world).unwrap();
    assert_eq!(verifier().verify_proof(&proof, b"grant").unwrap().0, 3);
    for index in 0..4 {
        let entry = &world.entries[index as usize];
        assert_eq!(verifier().verify_proof(&second.proof(index).unwrap(), entry).unwrap().0, index);
    }
    grant(&mut world, &mut second).unwrap();
}

#[test]
fn what_is_not_of_the_shown_checkpoint_stops_the_log() {
    type Change = fn(&mut Vec<Vec<u8>>);
    let changes: [(Change, OpenError); 4] = [
        (|entries| entries[0] = b"other".to_vec(), OpenError::Root),
        (|entries| drop(entries.pop()), OpenError::Size { expected: 3, found: 2 }),
        (|entries| entries.push(b"more".to_vec()), OpenError::Size { expected: 3, found: 4 }),
        (Vec::clear, OpenError::Size { expected: 3, found: 2 }),
    ];
    for (change, why) in changes {
        let (mut world, mut first, _) = two();
        let mut entries = world.entries[2..].to_vec();
        change(&mut entries);
        let newest = newest(&world);
        let heads = world.heads.len();
        assert_eq!(first.follow(&entries, newest, &mut world), Err(LogError::Followed(why)));
        assert_eq!(world.heads.len(), heads, "nothing of it became the head");
        assert_eq!(grant(&mut world, &mut first).unwrap_err(), LogError::Stopped);
        let newest = self::newest(&world);
        assert_eq!(first.follow(&[], newest, &mut world), Err(LogError::Stopped));
    }
}

#[test]
fn the_newest_is_signed_as_it_has_to_be() {
    let (world, first, second) = two();
    let published = world.published.last().unwrap();
    let more = Checkpoint { size: 9, root: [9; 32] };
    assert!(verifier().newest("", "").unwrap().is_none());
    let of = |published: &str, proposed: &str| {
        let newest = verifier().newest(published, proposed);
        newest.map(|newest| newest.unwrap().checkpoint()).map_err(|error| error.code())
    };
    assert_eq!(of(published, ""), Ok(second.head()));
    assert_eq!(of(published, &proposed(first.head())), Ok(second.head()));
    assert_eq!(of(published, &proposed(more)), Ok(more));
    assert_eq!(of("", &proposed(more)), Ok(more));
    // Without a quorum nothing is published, and a stranger proposes nothing.
    assert_eq!(of(&proposed(more), ""), Err("witness-quorum-missing"));
    assert_eq!(of("x", ""), Err("note-no-signatures"));
    let signed = proposed(more);
    let changed = signed.replacen("9\n", "8\n", 1);
    assert_ne!(changed, signed);
    assert_eq!(of(published, &changed), Err("note-signature"));
}

#[test]
fn what_one_began_the_other_brings_to_its_end() {
    let (mut world, mut first, second) = two();
    // The second one died with one witness asked, of three.
    let head = second.head();
    let (entries, published) = (world.entries.clone(), world.published.clone());
    world.published.pop();
    for witness in &mut world.witnesses[1..] {
        witness.latest = Some(first.head());
    }
    let shown = verifier().newest(world.published.last().unwrap(), &proposed(head)).unwrap().unwrap();
    assert_eq!(shown.checkpoint(), head);
    first.follow(&entries[2..], shown, &mut world).unwrap();
    assert_eq!((first.head(), world.published.last()), (head, published.last()));
    grant(&mut world, &mut first).unwrap();
}

#[test]
fn of_two_that_go_on_beside_each_other_one_is_cosigned() {
    let (mut world, mut first, second) = two();
    // The host hides what the second one committed.
    let missing = no_quorum(first.commit(batch(&[b"other"]), &mut world));
    assert_eq!(missing.code(), "log-forked-from-witnesses");
    assert!(missing.witnesses().iter().all(|(_, outcome)| *outcome != Outcome::Cosigned));
    drop(second);
}

#[test]
fn nothing_is_taken_without_a_quorum() {
    let (mut world, mut first, second) = two();
    world.faults([Fault::Silent, Fault::Silent, Fault::None]);
    for witness in &mut world.witnesses {
        witness.latest = Some(first.head());
    }
    let shown = verifier().newest("", &proposed(second.head())).unwrap().unwrap();
    let missing = no_quorum(first.follow(&behind(&world, 2), shown, &mut world));
    assert_eq!(missing.code(), "witness-quorum-missing");
    assert_eq!(grant(&mut world, &mut first).unwrap_err(), LogError::Stopped);
}
