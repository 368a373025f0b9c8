//! The runs.

use super::properties::Goal::*;
use super::{Breach, Check, SafetyRule, Setting};

/// Two of four hosts lose power and are forgotten, by a third.
fn two_off() -> Setting {
    Setting {
        hosts: 4,
        addresses: 0,
        epochs: 2,
        boots: 2,
        down: &[0, 1],
        forgets: &[0, 1],
        heirs: &[2],
        ..Setting::default()
    }
}

/// A host lends an address and is forgotten; then its heir is, by another.
fn heir_of_heir() -> Setting {
    Setting { epochs: 1, counts: 1, addresses: 1, forgets: &[0, 1], heirs: &[1, 2], ..two_off() }
}

/// The disk of a newcomer is put back as it was before it was a member.
fn newcomer_rolled() -> Setting {
    Setting {
        addresses: 0,
        newcomer: true,
        check: Check::All,
        boots: 1,
        rolls: 1,
        down: &[2],
        rolled: &[2],
        ..Setting::default()
    }
}

/// The disk of a founder is put back as it was before it had let another in.
fn founder_rolled() -> Setting {
    Setting { hosts: 2, down: &[0], rolled: &[0], ..newcomer_rolled() }
}

/// Two hosts have a cluster, the third has one of its own, and the fourth may be let in by either; the answers may be lost.
fn founded_apart() -> Setting {
    Setting {
        hosts: 4,
        addresses: 0,
        apart: &[2],
        newcomer: true,
        boots: 1,
        down: &[0],
        forgets: &[0],
        lost_answers: true,
        ..Setting::default()
    }
}

/// The protocol as it is.
pub fn full() -> Vec<Setting> {
    let base = Setting::default;
    vec![
        Setting {
            name: "D1 blocks and addresses change hands, agents are killed",
            kills: 2,
            epochs: 4,
            hears_borrowers: true,
            goals: vec![ThirdHostUsesBlock, StaticIsLive],
            ..base()
        },
        Setting {
            name: "D2 two addresses",
            addresses: 2,
            kills: 1,
            goals: vec![ThirdHostUsesBlock, StaticIsLive],
            ..base()
        },
        Setting { name: "D3 power is lost twice", boots: 2, goals: vec![ThirdHostUsesBlock, StaticIsLive], ..base() },
        Setting {
            name: "D4 a dead host is forgotten and comes back",
            boots: 1,
            forgets: &[0, 1, 2],
            goals: vec![ThirdHostUsesBlock, StaticIsLive, HeirUsesSpace, ForgottenIsFenced],
            ..base()
        },
        Setting {
            name: "D5 an old disk of the giver is put back, check with all",
            check: Check::All,
            boots: 1,
            rolls: 1,
            counts: 1,
            down: &[0],
            rolled: &[0],
            goals: vec![ThirdHostUsesBlock, StaticIsLive, RestoredIsFenced],
            ..base()
        },
        Setting {
            name: "D6 an old disk of the taker is put back, check with all",
            check: Check::All,
            boots: 1,
            rolls: 1,
            counts: 1,
            down: &[1],
            rolled: &[1],
            goals: vec![ThirdHostUsesBlock, StaticIsLive, RestoredIsFenced],
            ..base()
        },
        Setting {
            name: "D7 one joins while one dies, is forgotten and comes back",
            hosts: 4,
            addresses: 0,
            newcomer: true,
            boots: 1,
            down: &[0],
            forgets: &[0],
            goals: vec![ThirdHostUsesBlock, HeirUsesSpace, ForgottenIsFenced, NewcomerHolds],
            ..base()
        },
        Setting {
            name: "D8 a disk is lost",
            kills: 1,
            wipes: 1,
            epochs: 4,
            goals: vec![ThirdHostUsesBlock, StaticIsLive],
            ..base()
        },
        Setting {
            name: "D9 one is forgotten while an old disk of a member is put back",
            addresses: 0,
            check: Check::All,
            boots: 2,
            rolls: 1,
            down: &[0, 1],
            rolled: &[1],
            forgets: &[0],
            goals: vec![ThirdHostUsesBlock, HeirUsesSpace, ForgottenIsFenced],
            ..base()
        },
        Setting {
            name: "DA two operators forget a host on two hosts at once",
            hosts: 4,
            addresses: 0,
            boots: 1,
            down: &[0],
            forgets: &[0],
            goals: vec![ThirdHostUsesBlock, HeirUsesSpace, ForgottenIsFenced],
            ..base()
        },
        Setting {
            name: "DB one is forgotten, it and another lose power",
            boots: 2,
            epochs: 2,
            down: &[0, 1],
            forgets: &[0],
            goals: vec![StaticIsLive, HeirUsesSpace, ForgottenIsFenced],
            ..base()
        },
        Setting {
            name: "DC all lose power",
            addresses: 0,
            epochs: 2,
            boots: 3,
            goals: vec![ThirdHostUsesBlock, AllPassTheirChecks],
            ..base()
        },
        Setting {
            name: "DD an old disk from before it was a member is put back",
            goals: vec![ThirdHostUsesBlock, NewcomerHolds, StartsAnew],
            ..newcomer_rolled()
        },
        Setting {
            name: "DE one joins either of two clusters founded apart, while one is forgotten",
            goals: vec![HeirUsesSpace, ForgottenIsFenced, NewcomerHolds, HeirPassesForeign],
            ..founded_apart()
        },
        Setting {
            name: "DF the newcomer is forgotten, also where it is no member",
            down: &[3],
            forgets: &[3],
            goals: vec![HeirUsesSpace, ForgottenIsFenced, NewcomerHolds, HeirPassesForeign],
            ..founded_apart()
        },
        Setting {
            name: "DG an old disk of the founder from when it was alone is put back, check with all",
            goals: vec![NewcomerHolds, RestoredIsFenced],
            ..founder_rolled()
        },
        Setting {
            name: "E1 two are forgotten by one heir together, and come back",
            goals: vec![HeirUsesSpace, ForgottenIsFenced, BothForgottenAreFenced],
            ..two_off()
        },
        Setting {
            name: "E2 an heir dies half way; another forgets both",
            heirs: &[1, 2],
            goals: vec![HeirUsesSpace, ForgottenIsFenced, BothForgottenAreFenced],
            ..two_off()
        },
        Setting {
            name: "E3 two are forgotten, by any of two heirs each",
            heirs: &[2, 3],
            goals: vec![HeirUsesSpace, ForgottenIsFenced, BothForgottenAreFenced],
            ..two_off()
        },
        Setting {
            name: "E4 two are forgotten, and one of them is off twice",
            boots: 3,
            goals: vec![HeirUsesSpace, ForgottenIsFenced, BothForgottenAreFenced],
            ..two_off()
        },
        Setting {
            name: "E5 one lends an address and is forgotten, and so is its heir",
            goals: vec![StaticIsLive, HeirUsesSpace],
            ..heir_of_heir()
        },
    ]
}

/// Does it take more than seconds, also within small bounds?
pub fn is_large(setting: &Setting) -> bool {
    ["DB", "DE", "E3", "E4", "E5", "AN"].iter().any(|name| setting.name.starts_with(name))
}

/// The same within bounds that take seconds: a block is given away once, and an address lent once. Without those that this
/// makes no smaller.
pub fn small() -> Vec<Setting> {
    let bounded = |setting: Setting| Setting {
        epochs: 2,
        counts: 1,
        kills: setting.kills.min(1),
        goals: setting.goals.into_iter().filter(|goal| *goal != ThirdHostUsesBlock).collect(),
        ..setting
    };
    full().into_iter().filter(|setting| !is_large(setting)).map(bounded).collect()
}

/// One rule switched off in each.
pub fn broken() -> Vec<Setting> {
    let base = Setting::default;
    let roll = || Setting { check: Check::All, boots: 1, rolls: 1, counts: 1, down: &[0], rolled: &[0], ..base() };
    let forget = || Setting { boots: 1, forgets: &[0, 1, 2], ..base() };
    let join = || Setting { hosts: 4, addresses: 0, newcomer: true, boots: 1, down: &[0], forgets: &[0], ..base() };
    vec![
        Setting {
            name: "A1 answers leave before the write is durable",
            breach: Some(Breach::AnswerFirst),
            kills: 1,
            ..base()
        },
        Setting { name: "A2 a lease is taken whenever it arrives", without: Some(SafetyRule::HighestLease), ..base() },
        Setting {
            name: "A3 a lost disk, the same identity",
            breach: Some(Breach::SameIdentity),
            kills: 1,
            wipes: 1,
            ..base()
        },
        Setting { name: "A4 bindings in memory only", breach: Some(Breach::BindingsInMemory), kills: 1, ..base() },
        Setting {
            name: "A5 the heir takes what it thinks the dead host had",
            without: Some(SafetyRule::ForgetByAll),
            ..forget()
        },
        Setting {
            name: "A6 the same, and the host is alive",
            without: Some(SafetyRule::ForgetByAll),
            breach: Some(Breach::ForgetTheLiving),
            ..forget()
        },
        Setting { name: "A7 a forgotten host comes back without a check", check: Check::Trust, ..forget() },
        Setting { name: "A8 sealed although it came back", without: Some(SafetyRule::NoSealIfBack), ..forget() },
        Setting { name: "A9 an old disk, a check with just one", check: Check::Reachable, ..roll() },
        Setting { name: "AA an old disk, no check", check: Check::Trust, ..roll() },
        Setting { name: "AB joined by one member", without: Some(SafetyRule::JoinByMajority), ..join() },
        Setting {
            name: "AC the heir asks only the members it knows",
            without: Some(SafetyRule::AskAllThatAreKnown),
            ..join()
        },
        Setting { name: "AD hearsay is passed on", breach: Some(Breach::Hearsay), ..join() },
        Setting { name: "AE an old disk, earlier boots are believed", without: Some(SafetyRule::NewestBoot), ..roll() },
        Setting {
            name: "AF an old disk, revisions and leases are not compared",
            without: Some(SafetyRule::Revisions),
            ..roll()
        },
        Setting {
            name: "AG a host that is joining testifies",
            without: Some(SafetyRule::EstablishedTestify),
            ..join()
        },
        Setting { name: "AH a sealed host is heard", without: Some(SafetyRule::SealedIsSilent), ..forget() },
        Setting {
            name: "AI hosts that wait for their own boot check let each other in",
            without: Some(SafetyRule::CheckedTestify),
            ..two_off()
        },
        Setting {
            name: "AJ two are said to be off one after the other",
            without: Some(SafetyRule::OffTogether),
            boots: 3,
            ..two_off()
        },
        Setting {
            name: "AN an heir confirms only what was lent in the last epoch",
            without: Some(SafetyRule::ConfirmEarlier),
            ..heir_of_heir()
        },
        Setting {
            name: "AK hosts of two clusters let one in",
            without: Some(SafetyRule::OneCluster),
            ..founded_apart()
        },
        Setting {
            name: "AL a disk from before it was a member goes on joining",
            without: Some(SafetyRule::JoinInOneBoot),
            ..newcomer_rolled()
        },
        Setting {
            name: "AM an old disk of the founder from when it was alone, a check with nobody",
            check: Check::Reachable,
            ..founder_rolled()
        },
    ]
}
