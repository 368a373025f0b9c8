//! A disk that is full.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// A disk of its own for the thread that calls, of so many bytes; `false` if this process may not mount.
pub(crate) fn mount_disk(at: &Path, bytes: usize) -> bool {
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(format!("size={bytes}").as_str()))
    };
    private().is_ok()
}

/// Endpoints, different ones in each round.
fn many(round: u64) -> impl Iterator<Item = Change> {
    (0..200).map(move |n| {
        let mut attachment = attachment(1, NetworkId::from_bytes([1; 16]));
        attachment.endpoint.id = EndpointId::from_bytes((u128::from(round) << 64 | n).to_be_bytes());
        Change::Attach(attachment.into())
    })
}

/// Writes rounds of endpoints until the disk is full: how many, and what it says then.
pub(crate) fn write_until_full(store: &mut Store) -> (u64, StoreError) {
    for round in 0..10_000 {
        if let Err(error) = store.commit(&many(round).collect::<Vec<_>>()) {
            return (round, error);
        }
    }
    unreachable!("the disk is never full")
}

#[test]
fn on_a_full_disk_nothing_is_written_and_what_frees_space_still_is() {
    // On a thread of its own: a mount namespace is the thread's.
    let scratch = Scratch::new();
    let test = || {
        if !mount_disk(&scratch.0, 8 << 20) {
            eprintln!("not tried: this user may not mount");
            return;
        }
        let (mut store, _) = scratch.open().expect("there is space for a new one");
        let (written, error) = write_until_full(&mut store);
        assert!(error.to_string().contains("nothing was changed"), "{error}");
        let commit = store.commits;
        assert_eq!(commit, written, "what failed does not count");
        assert!(commit > 1, "there was space for some");

        let detach: Vec<Change> = many(0)
            .filter_map(|w| match w {
                Change::Attach(a) => Some(Change::Detach(a.endpoint.id)),
                _ => None,
            })
            .collect();
        for (n, one) in (1..).zip(detach.chunks(4)) {
            assert_eq!(store.commit(one).map_err(|e| e.to_string()), Ok(commit + n), "a release is written");
        }
        drop(store);
        let (_, loaded) = scratch.open().expect("the file is whole");
        assert_eq!(loaded.commit, commit + 50);
        assert_eq!(loaded.attachments.len() as u64, 200 * (written - 1));
    };
    std::thread::scope(|scope| scope.spawn(test).join()).expect("the test's thread");
}

/// Gives the identity up that is on the disk, as a host does that hears that it was forgotten.
fn give_up(store: &mut Store, ledger: &Ledger) -> Result<(), StoreError> {
    let by = HostId::from_bytes([9; 16]);
    let seals = [(ledger.me(), Seal { heir: by, done: true })].into();
    let told = ledger.step(&Input::Belongs { from: by, founder: None, seals }, 0);
    store.commit(&told.changes.into_iter().map(Change::Ledger).collect::<Vec<_>>()).map(drop)
}

/// Fills the disk to its last byte.
pub(crate) fn fill(dir: &Path) {
    use std::io::Write;
    let mut ballast = fs::File::create(dir.join("ballast")).expect("a file takes no room");
    while ballast.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn an_identity_is_known_to_be_given_up_before_there_is_room_for_a_new_one() {
    let scratch = Scratch::new();
    let test = || {
        if !mount_disk(&scratch.0, 12 << 20) {
            eprintln!("not tried: this user may not mount");
            return;
        }
        let (mut store, loaded) = scratch.found().expect("there is space for a new one");
        fs::write(scratch.0.join("room"), vec![1; 4 << 20]).expect("there is space for that");
        let (written, _) = write_until_full(&mut store);
        assert!(written > 1, "there was space for some");
        give_up(&mut store, &loaded.ledger).expect("that has its reserve");
        drop(store);
        fill(&scratch.0);
        let look = || StartupState::look(&scratch.0, &machine("a", "boot 1", 1000));
        // The first time, and whenever it is started again.
        for _ in 0..2 {
            assert!(!look().expect("it takes no room to look").is_own());
            let error = look().and_then(StartupState::take_up).map(drop).expect_err("the disk is full");
            let line = error.to_string();
            for word in ["state.redb", "new identity", "has space", "start overlayd again"] {
                assert!(line.contains(word), "no `{word}` in: {line}");
            }
            assert!(
                !scratch.0.join("state.redb.fenced-1000").exists(),
                "the old one is there until there is a new one"
            );
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(source.contains("No space left"), "{source}");
        }
        for file in ["ballast", "room"] {
            fs::remove_file(scratch.0.join(file)).expect("it is there");
        }
        let (_, again) = scratch.open().expect("there is space again");
        assert_ne!(again.identity.id(), loaded.identity.id());
        assert!(scratch.0.join("state.redb.fenced-1000").exists());
    };
    std::thread::scope(|scope| scope.spawn(test).join()).expect("the test holds");
}
