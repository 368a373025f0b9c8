//! `--filter`: which networks are meant, in Docker's words.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_proto::v1::NetworkInfo;

/// One condition. Several of one kind are alternatives; those of different kinds must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// It has this label, or this label with this value.
    Label(String, Option<String>),
    /// It does not.
    NotLabel(String, Option<String>),
    /// Its driver.
    Driver(String),
    /// A part of its name.
    Name(String),
    /// How its id begins.
    Id(String),
    /// `global`, over all hosts, or `local`, on one.
    Scope(String),
    /// Is nobody in it?
    Dangling(bool),
    /// It was created before this moment.
    Until(SystemTime),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = "label, label!, driver, name, id, scope, dangling or until";
        let (kind, value) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is no filter: give KIND=VALUE, of {kinds}"))?;
        let labelled = || match value.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        Ok(match kind {
            "label" => {
                let (key, value) = labelled();
                Self::Label(key, value)
            }
            "label!" => {
                let (key, value) = labelled();
                Self::NotLabel(key, value)
            }
            "driver" => Self::Driver(value.to_owned()),
            "name" => Self::Name(value.to_lowercase()),
            "id" => Self::Id(value.to_lowercase()),
            "scope" if ["global", "local"].contains(&value) => Self::Scope(value.to_owned()),
            "scope" => return Err(format!("there is no scope `{value}`: choose global or local")),
            "dangling" => {
                Self::Dangling(value.parse().map_err(|_| format!("dangling is true or false, not `{value}`"))?)
            }
            "until" => Self::Until(moment(value)?),
            _ => return Err(format!("there is no filter `{kind}`: choose {kinds}")),
        })
    }
}

/// A time, or how long ago one was.
fn moment(text: &str) -> Result<SystemTime, String> {
    let ago = |ago: Duration| SystemTime::now().checked_sub(ago);
    let given = humantime::parse_duration(text).ok().and_then(ago);
    given
        .or_else(|| humantime::parse_rfc3339_weak(text).ok())
        .ok_or_else(|| format!("`{text}` is no time: give one like 24h or 2026-01-31T12:00:00Z"))
}

impl Filter {
    /// Does it hold of a network?
    pub fn holds(&self, network: &NetworkInfo) -> bool {
        let has = |key: &String, value: &Option<String>| {
            network.labels.get(key).is_some_and(|there| value.as_ref().is_none_or(|value| value == there))
        };
        match self {
            Self::Label(key, value) => has(key, value),
            Self::NotLabel(key, value) => !has(key, value),
            Self::Driver(driver) => network.driver == *driver,
            Self::Name(part) => network.name.contains(part.as_str()),
            Self::Id(start) => network.id.starts_with(start.as_str()),
            Self::Scope(scope) => scope_of(network) == scope,
            Self::Dangling(dangling) => (network.endpoints == 0) == *dangling,
            Self::Until(moment) => UNIX_EPOCH + Duration::from_secs(network.created) < *moment,
        }
    }

    /// Can it say what to remove? Of what nobody uses, Docker takes no other.
    pub fn is_for_prune(&self) -> bool {
        matches!(self, Self::Label(..) | Self::NotLabel(..) | Self::Until(_))
    }

    /// What it looks at.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Label(..) => "label",
            Self::NotLabel(..) => "label!",
            Self::Driver(_) => "driver",
            Self::Name(_) => "name",
            Self::Id(_) => "id",
            Self::Scope(_) => "scope",
            Self::Dangling(_) => "dangling",
            Self::Until(_) => "until",
        }
    }

    /// Labels add up; of anything else a network has one.
    fn narrows(&self) -> bool {
        matches!(self, Self::Label(..) | Self::NotLabel(..))
    }
}

/// Is it on all hosts?
pub fn scope_of(network: &NetworkInfo) -> &'static str {
    if network.driver == "bridge" { "local" } else { "global" }
}

/// Is it one of those that are meant?
pub fn is_meant(network: &NetworkInfo, filters: &[Filter]) -> bool {
    let kind = std::mem::discriminant::<Filter>;
    filters.iter().all(|filter| {
        let same = || filters.iter().filter(|other| kind(other) == kind(filter));
        if filter.narrows() { filter.holds(network) } else { same().any(|other| other.holds(network)) }
    })
}

#[cfg(test)]
mod tests;
