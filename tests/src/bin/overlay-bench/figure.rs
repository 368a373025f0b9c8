//! Figures: what was measured, how often, and the table that shows them.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// 10^9 bits of payload a second.
    GigabitsPerSecond,
    /// Requests or questions that were answered, a second.
    PerSecond,
    /// A time.
    Milliseconds,
    /// Of the time of one processor.
    PercentOfCore,
    /// 2^20 bytes.
    Mebibytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::GigabitsPerSecond => "Gbit/s",
            Self::PerSecond => "/s",
            Self::Milliseconds => "ms",
            Self::PercentOfCore => "% of a core",
            Self::Mebibytes => "MiB",
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Self::GigabitsPerSecond | Self::PerSecond)
    }

    fn decimals(self) -> usize {
        match self {
            Self::GigabitsPerSecond | Self::PercentOfCore => 2,
            Self::Milliseconds | Self::Mebibytes => 1,
            Self::PerSecond => 0,
        }
    }

    /// The number as people read it: `13.42`, `98,039`.
    pub fn show(self, value: f64) -> String {
        let text = format!("{value:.*}", self.decimals());
        let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let mut grouped = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index) % 3 == 0 {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        grouped + rest
    }
}

/// One line of the table: a quantity, and every time that it was measured.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is; no two figures of a run have the same title.
    pub title: String,
    pub unit: Unit,
    /// The title of the figure that this one is compared to.
    pub baseline: Option<String>,
    pub values: Vec<f64>,
}

impl Figure {
    pub fn new(title: impl Into<String>, unit: Unit) -> Self {
        Self { title: title.into(), unit, baseline: None, values: Vec::new() }
    }

    /// The same, to be shown as a share of another figure.
    pub fn compared_to(mut self, baseline: impl Into<String>) -> Self {
        self.baseline = Some(baseline.into());
        self
    }

    /// The middle value, or the mean of the two in the middle; none if nothing was measured.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        if sorted.len() % 2 == 1 { Some(upper) } else { Some(f64::midpoint(*sorted.get(middle - 1)?, upper)) }
    }

    /// The slowest, largest or dearest one.
    pub fn worst(&self) -> Option<f64> {
        let worse = if self.unit.more_is_better() { f64::min } else { f64::max };
        self.values.iter().copied().reduce(worse)
    }
}

/// The figures as a table in Markdown. A figure's ratio is that of the medians.
pub fn table(figures: &[Figure]) -> String {
    let mut table = String::from("| figure | median | worst | unit | times | ratio to underlay |\n");
    table += "|---|---:|---:|---|---:|---:|\n";
    for figure in figures {
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| figure.unit.show(value));
        let baseline = figures.iter().find(|other| Some(&other.title) == figure.baseline.as_ref());
        let ratio = baseline.and_then(|baseline| Some(figure.median()? / baseline.median()?));
        table += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            figure.title,
            show(figure.median()),
            show(figure.worst()),
            figure.unit.name(),
            figure.values.len(),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        );
    }
    table
}

#[cfg(test)]
mod tests;
