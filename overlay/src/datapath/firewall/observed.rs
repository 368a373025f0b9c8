//! What is seen of a table in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::FieldType;
use super::sets::{Element, Field, Set, SetDefinition};
use super::{Chain, Table};

/// A table of ours as it is in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTable {
    /// The comments of the rules of each chain, in order.
    pub chains: BTreeMap<String, Vec<String>>,
    /// The elements of each set or map; none of one that packets fill.
    pub sets: BTreeMap<String, BTreeSet<StoredElement>>,
}

/// An element as the kernel stores it: [`SetDefinition::element`] tells what it means.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredElement {
    /// Where its key begins.
    pub first: Vec<u8>,
    /// Where its key ends: the same, unless it is a range.
    pub last: Vec<u8>,
    /// Its value; nothing in a set.
    pub value: Vec<u8>,
}

impl StoredElement {
    /// The element whose key and value have parts of these types; `None` if that is not what is stored.
    pub fn element(&self, key: &[FieldType], value: &[FieldType]) -> Option<Element> {
        let value = fields(value, &self.value, &self.value)?;
        Some(Element { key: fields(key, &self.first, &self.last)?, value })
    }
}

/// The parts that these bytes stand for, all of them.
fn fields(types: &[FieldType], mut first: &[u8], mut last: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::with_capacity(types.len());
    for part in types {
        let (from, to);
        (from, first) = first.split_at_checked(part.stored_len())?;
        (to, last) = last.split_at_checked(part.stored_len())?;
        fields.push(part.read(from, to)?);
    }
    (first.is_empty() && last.is_empty()).then_some(fields)
}

impl Table {
    /// What is seen of this table once it is in the kernel.
    pub fn observed(&self) -> ObservedTable {
        let rules = |chain: &Chain| (chain.name.to_owned(), chain.comments());
        ObservedTable {
            chains: self.chains.iter().map(rules).collect(),
            sets: self.sets.iter().map(|set| (set.name().to_owned(), set.stored())).collect(),
        }
    }

    /// The same table with what is seen of its sets in the kernel besides, as far as it is worth keeping.
    pub fn with(&self, observed: &ObservedTable, is_kept: impl Fn(&Element) -> bool) -> Self {
        Self { sets: self.sets.iter().map(|set| set.with(observed, &is_kept)).collect(), ..self.clone() }
    }

    /// The sets that differ from what is seen, if nothing else does: then all the others can stay, and what packets have put into
    /// them.
    pub fn changed_sets(&self, observed: &ObservedTable) -> Option<Vec<Set>> {
        let wanted = self.observed();
        if wanted.chains != observed.chains || !wanted.sets.keys().eq(observed.sets.keys()) {
            return None;
        }
        let is_changed = |set: &&Set| wanted.sets.get(set.name()) != observed.sets.get(set.name());
        Some(self.sets.iter().filter(is_changed).cloned().collect())
    }

    /// The elements of these maps that are there and should not be, and those that should be and are not. A table that is not there
    /// has none; an element that this program can't have made is none.
    pub fn changed_elements(&self, observed: Option<&ObservedTable>, maps: &[SetDefinition]) -> Vec<Element> {
        let mut changed = Vec::new();
        for map in maps {
            let wanted = self.sets.iter().filter(|set| set.name() == map.name).flat_map(Set::stored).collect();
            let there = observed.and_then(|observed| observed.sets.get(map.name));
            let different =
                there.unwrap_or(&BTreeSet::new()).symmetric_difference(&wanted).cloned().collect::<Vec<_>>();
            changed.extend(different.iter().filter_map(|stored| map.element(stored)));
        }
        changed
    }
}
