//! Scenes: the product as its users run it, on the lab, one sandbox each.
//!
//! `cargo test --test scenes [-- NAME]` plays them; each re-executes this program, so they can run in parallel, twice
//! in a row and after one that crashed. Scenes with bounds such as three seconds to notice a dead host have the machine to
//! themselves. The agents' logs are shown when a scene fails. `target/scenes.txt` says how long each scene took.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use support::runner::{Scene, main as play};
use support::shares::Load;

mod agents;
mod apart;
mod contention;
mod disks;
mod drift;
mod edges;
mod endpoints;
mod fail_points;
mod guides;
mod input;
mod ipv6;
mod kills;
mod lab_itself;
mod leases;
mod leftovers;
mod lending;
mod limits;
mod links;
mod names;
mod neighbours;
mod packets;
mod partitions;
mod ports;
mod redis;
mod resolvers;
mod restarts;
mod roles;
mod run_names;
mod support;
mod underlay;

/// A table of scenes, in groups with a load each: the name of a function is the name of the scene.
macro_rules! scenes {
    ($($module:ident, $load:ident: $($name:ident),+;)+) => {
        &[$($(Scene { group: stringify!($module), name: stringify!($name), load: Load::$load, play: $module::$name }),+),+]
    };
}

/// Long ones first, so that none of them runs on alone at the end.
const SCENES: &[Scene] = scenes! {
    roles, Heavy:
        a_host_is_forgotten_by_agents_killed_before_any_commit,
        a_host_is_forgotten_by_agents_killed_after_any_commit;
    kills, Heavy:
        an_agent_killed_while_it_attaches_leaves_all_or_nothing;
    underlay, Heavy:
        hosts_whose_link_was_down_for_a_minute_come_back_by_themselves;
    fail_points, Heavy:
        an_agent_killed_before_any_commit_has_done_nothing,
        an_agent_killed_after_any_commit_has_done_all_of_it,
        an_agent_killed_before_any_answer_gives_it_when_asked_again,
        an_endpoint_id_means_one_endpoint;
    edges, Light:
        each_of_many_short_jobs_gets_an_address_of_a_small_pool,
        hosts_whose_address_is_on_loopback_are_a_cluster,
        a_network_without_a_subnet_gets_none_that_any_host_routes,
        links_of_other_runtimes_are_no_reason_to_look;
    limits, Heavy:
        a_bridge_takes_1022_endpoints_and_the_next_is_refused;
    limits, Light:
        one_network_too_many_for_the_open_files_takes_nothing_from_the_others;
    leftovers, Light:
        two_hundred_operations_leave_nothing;
    endpoints, Light:
        any_address_can_be_asked_for_on_any_host,
        dynamic_addresses_are_never_doubled,
        an_endpoint_whose_namespace_is_gone_is_released,
        an_endpoint_lives_as_long_as_anybody_is_in_its_namespace,
        a_restarted_container_keeps_its_address,
        a_network_goes_with_its_last_trace,
        run_passes_exit_status_and_leaves_nothing;
    leases, Light:
        a_new_cluster_is_ready_as_soon_as_its_hosts_hear_each_other,
        a_dead_host_is_forgotten_and_its_space_is_used_again,
        forgetting_waits_for_a_member_that_is_away_and_says_for_whom,
        a_host_that_is_there_is_not_forgotten,
        two_heirs_agree,
        hosts_that_are_off_are_forgotten_together,
        a_rebooted_host_is_let_in_or_waits;
    disks, Light:
        a_restored_disk_is_fenced,
        a_cloned_disk_is_refused_while_its_host_runs,
        a_host_whose_copy_was_let_in_while_it_was_cut_off_gives_up,
        the_strict_check_asks_all,
        a_lost_or_damaged_disk_owns_nothing,
        a_fenced_host_without_room_for_a_new_identity_is_cut_off,
        a_fenced_host_that_is_killed_is_cut_off_before_it_needs_room,
        a_full_disk_refuses_and_still_lets_go;
    apart, Light:
        clusters_that_were_founded_apart_stay_apart_until_one_is_given_up,
        who_founds_alone_and_has_nothing_joins_the_others;
    lending, Light:
        a_lent_address_stays_where_it_is_when_its_lender_dies,
        a_lent_address_waits_for_its_borrower;
    partitions, Light:
        both_sides_of_a_split_go_on_until_they_are_full,
        the_same_network_name_in_two_partitions,
        a_network_deleted_in_one_part_drains_in_the_other,
        a_full_power_loss_comes_back_with_the_same_addresses;
    input, Light:
        bad_input_gets_one_clear_line,
        a_daemon_that_cannot_start_says_why;
    lab_itself, Alone:
        hosts_hear_each_other_until_they_are_cut,
        loss_and_rate_can_be_seen,
        a_host_that_crashed_comes_back_with_its_disk_only,
        broadcasts_are_caught_inside_a_tunnel,
        the_flow_counts_what_a_cut_costs,
        nothing_outlives_a_killed_sandbox;
    packets, Light:
        the_first_packet_crosses_and_nothing_is_broadcast,
        two_networks_with_the_same_subnet_never_meet,
        a_lossy_wire_slows_things_down_and_breaks_nothing,
        containers_reach_the_world_through_the_gateway;
    names, Light:
        names_resolve_on_every_host,
        other_names_are_asked_where_the_host_asks;
    resolvers, Light:
        what_resolves_on_the_host_resolves_in_a_container;
    run_names, Light:
        a_command_that_is_run_asks_its_own_nameserver;
    agents, Alone:
        killing_and_restarting_every_agent_loses_no_packet,
        what_is_deleted_by_hand_is_repaired_within_a_second,
        a_crashed_host_is_withdrawn_within_three_seconds_and_comes_back,
        a_crashed_host_is_withdrawn_in_time_at_the_slowest_gossip_too,
        hosts_that_were_cut_find_each_other_again,
        a_stranger_without_the_key_learns_and_changes_nothing,
        busy_processors_kill_nobody,
        busy_processors_kill_nobody_at_the_slowest_gossip_either;
    drift, Alone:
        what_another_program_changes_is_set_right_or_told,
        what_is_changed_again_and_again_is_set_right_each_time_and_told;
    edges, Alone:
        an_address_that_comes_back_with_another_mac_is_reached_within_a_second;
    restarts, Alone:
        a_container_is_reached_as_soon_as_it_is_attached,
        an_agent_that_stays_down_takes_nothing_from_its_hosts_traffic,
        agents_that_come_back_one_after_another_lose_no_packet;
    ipv6, Light:
        containers_have_ipv6_beside_ipv4_across_hosts,
        an_address_that_moves_keeps_its_mac,
        published_ports_lead_in_under_ipv6,
        a_network_may_have_ipv6_only,
        links_hold_under_ipv6,
        the_tunnels_may_run_over_ipv6;
    ports, Light:
        published_ports_lead_in_and_the_client_stays_who_it_is,
        a_port_is_reached_in_each_network_of_its_container,
        a_udp_flow_follows_its_port_at_once,
        sctp_goes_where_tcp_does,
        only_those_who_may_reach_a_published_port,
        a_thousand_published_ports_are_elements_and_not_rules;
    guides, Light:
        the_mtu_follows_the_underlay_of_every_host,
        the_guides_own_clients_are_served,
        a_command_runs_in_the_host_in_nothing_or_in_another_container,
        a_bridge_network_is_on_its_host_and_nowhere_else,
        an_internal_network_has_no_way_out,
        a_network_without_masquerade_is_routed,
        networks_are_found_pruned_and_limited_in_docker_s_words,
        tcp_segments_fit_the_network_whatever_an_interface_says,
        a_container_is_in_several_networks,
        what_is_in_the_kernel_is_shown;
    links, Light:
        containers_reach_each_other_by_links_only,
        links_outlive_agents_and_containers,
        what_cannot_be_linked_is_said_in_one_line;
    neighbours, Heavy:
        all_works_beside_docker,
        all_works_beside_ufw,
        all_works_beside_firewalld,
        a_chain_of_somebody_s_own_is_told_and_left,
        bridged_frames_are_not_filtered_by_the_host;
    contention, Alone:
        six_hosts_take_the_addresses_that_they_ask_for_at_once,
        of_hosts_that_ask_for_one_address_at_once_one_gets_it;
    underlay, Alone:
        one_percent_of_loss_hurts_nobody,
        five_percent_of_loss_hurt_nobody,
        thirty_percent_of_loss_slow_things_down_and_break_nothing,
        a_megabit_is_enough;
    redis, Alone:
        a_redis_cluster_forms_and_survives_the_loss_of_a_master;
};

fn main() -> anyhow::Result<ExitCode> {
    play(SCENES)
}
