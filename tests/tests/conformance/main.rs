//! One suite, two kernels: what holds for the fake one holds for the real one, refusals included.
//!
//! The real kernel's cases run inside a sandbox, each in a network namespace of its own that plays the host. They break
//! things with `ip`, `bridge` and `nft`, as people do.

#![forbid(unsafe_code)]

mod bench;
mod cases;
mod fake;
mod followed;
mod foreign_chains;
mod real;
mod real_only;
mod silence;
mod underlay;
mod world;

use libtest_mimic::{Arguments, Trial};

/// Each case once per kernel.
macro_rules! trials {
    ($($case:ident),+ $(,)?) => {
        vec![
            $(
                Trial::test(concat!("fake::", stringify!($case)), || fake::run(cases::$case)),
                Trial::test(concat!("real::", stringify!($case)), || real::run(cases::$case)),
            )+
        ]
    };
}

fn main() -> anyhow::Result<()> {
    overlay_tests::sandbox::enter()?;
    let mut trials = trials![
        a_round_makes_what_is_desired_and_the_next_has_nothing_to_do,
        whatever_is_broken_by_hand_is_repaired_by_one_round,
        a_look_at_a_part_shows_just_that_part,
        a_round_of_a_part_repairs_it_and_leaves_the_others,
        a_step_that_finds_its_work_done_succeeds,
        another_agent_adopts_what_is_there,
        an_endpoint_goes_and_leaves_nothing,
        many_endpoints_go_in_one_round_and_the_others_stay,
        a_segment_goes_and_leaves_nothing,
        an_interface_that_exists_is_never_touched,
        a_namespace_that_is_gone_is_refused,
        a_namespace_that_was_replaced_is_refused,
        a_container_that_ended_takes_its_port_along,
        a_vni_that_is_taken_is_refused,
        a_vni_of_another_network_of_ours_is_refused,
        a_udp_port_that_is_taken_is_refused,
        a_changed_wish_is_fulfilled,
        rules_for_the_bridge_come_change_and_go,
        a_port_follows_the_mtu_and_is_not_made_anew,
        a_port_whose_container_is_gone_does_not_follow,
        a_mac_moves_between_hosts_and_home_again,
        two_thousand_remotes_come_and_go,
        what_is_not_known_yet_is_not_taken_away,
        two_networks_with_the_same_subnet_stand_side_by_side,
        chains_of_others_let_containers_pass_while_there_is_a_way_out,
        what_is_foreign_survives,
    ];
    trials.extend(real_only::trials());
    trials.extend(silence::trials());
    trials.extend(foreign_chains::trials());
    trials.extend(followed::trials());
    trials.extend(underlay::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
