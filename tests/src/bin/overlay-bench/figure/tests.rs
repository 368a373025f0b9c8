use super::*;

fn figure(title: &str, unit: Unit, values: &[f64]) -> Figure {
    Figure { values: values.to_vec(), ..Figure::new(title, unit) }
}

#[test]
fn the_median_is_the_middle_and_needs_no_order() {
    let median = |values: &[f64]| figure("x", Unit::Milliseconds, values).median();
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[7.0]), Some(7.0));
    assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
}

#[test]
fn the_worst_is_the_lowest_rate_and_the_longest_time() {
    assert_eq!(figure("x", Unit::PerSecond, &[3.0, 1.0, 2.0]).worst(), Some(1.0));
    assert_eq!(figure("x", Unit::Milliseconds, &[3.0, 1.0, 2.0]).worst(), Some(3.0));
}

#[test]
fn numbers_are_shown_as_people_read_them() {
    for (unit, value, shown) in [
        (Unit::PerSecond, 98_039.22, "98,039"),
        (Unit::PerSecond, 1_234_567.0, "1,234,567"),
        (Unit::PerSecond, 999.0, "999"),
        (Unit::GigabitsPerSecond, 13.418, "13.42"),
        (Unit::Milliseconds, 1_400.04, "1,400.0"),
        (Unit::PercentOfCore, 0.154, "0.15"),
    ] {
        assert_eq!(unit.show(value), shown);
    }
}

#[test]
fn the_table_has_the_ratio_of_the_medians() {
    let bare = figure("TCP, underlay", Unit::GigabitsPerSecond, &[20.0, 10.0, 1.0]);
    let overlay = figure("TCP, overlay", Unit::GigabitsPerSecond, &[8.5, 9.0, 8.0]).compared_to("TCP, underlay");
    let lonely = figure("alone", Unit::Milliseconds, &[]).compared_to("nothing of this run");
    let table = table(&[bare, overlay, lonely]);
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(
        rows,
        [
            "| TCP, underlay | 10.00 | 1.00 | Gbit/s | 3 |  |",
            "| TCP, overlay | 8.50 | 8.00 | Gbit/s | 3 | 0.85 |",
            "| alone | - | - | ms | 0 |  |",
        ]
    );
}
