//! What can be pointed at, by the mouse or by the arrow keys, and where it was drawn.

use ratatui::layout::Rect;

use super::choice::{Sort, View};
use super::keys::Action;
use crate::model::Site;

/// Something that can be selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// The picture.
    Picture,
    /// The name of a view.
    View(View),
    /// A site.
    Site(Site),
    /// A channel's bar.
    Channel(usize),
    /// A group, to show its members only.
    Group(usize),
    /// What a key of the footer does.
    Action(Action),
    /// A token of the attention map.
    Token(usize),
    /// A head of the attention.
    Head(usize),
    /// An object of a detector.
    Object(usize),
    /// A row of the comparison.
    Row(usize),
    /// A word that the glossary explains, such as the title of a column.
    Term(&'static str),
    /// The title of a column that the sites can be sorted by.
    Sort(Sort),
}

/// Where the last frame drew what a click can land on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits(Vec<(Rect, Hit)>);

impl Hits {
    /// `hit` was drawn in `area`.
    pub fn add(&mut self, area: Rect, hit: Hit) {
        if !area.is_empty() {
            self.0.push((area, hit));
        }
    }

    /// Takes what another part of the screen has drawn.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What lies at a column and row; of two that overlap, what was drawn later.
    #[must_use]
    pub fn at(&self, column: u16, row: u16) -> Option<Hit> {
        self.0.iter().rev().find(|(area, _)| area.contains((column, row).into())).map(|(_, hit)| *hit)
    }

    /// All of them with their areas.
    pub fn iter(&self) -> impl Iterator<Item = (Rect, Hit)> + '_ {
        self.0.iter().copied()
    }
}

/// What a key walks over, in order, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    stops: Vec<Hit>,
    at: Option<usize>,
}

impl Walk {
    /// A walk over `stops` that stands at `present`, if that is one of them.
    #[must_use]
    pub fn new(stops: Vec<Hit>, present: Option<Hit>) -> Self {
        let at = stops.iter().position(|stop| Some(*stop) == present);
        Self { stops, at }
    }

    /// A walk over sites.
    #[must_use]
    pub fn over(sites: Vec<Site>, present: Option<Site>) -> Self {
        Self::new(sites.into_iter().map(Hit::Site).collect(), present.map(Hit::Site))
    }

    /// What lies `by` stops on, the ends being ends; the first where it stands nowhere.
    #[must_use]
    pub fn moved(&self, by: isize) -> Option<Hit> {
        let to = self.at.map_or(0, |at| at.saturating_add_signed(by).min(self.stops.len().saturating_sub(1)));
        self.stops.get(to).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_stops_at_its_ends_and_starts_at_the_first() {
        let walk = |present| Walk::new((3..6).map(Hit::Channel).collect(), present);
        assert_eq!(walk(Some(Hit::Channel(4))).moved(1), Some(Hit::Channel(5)));
        assert_eq!(walk(Some(Hit::Channel(4))).moved(isize::MAX / 2), Some(Hit::Channel(5)));
        assert_eq!(walk(Some(Hit::Channel(4))).moved(isize::MIN / 2), Some(Hit::Channel(3)));
        assert_eq!((walk(None).moved(1), walk(Some(Hit::Row(4))).moved(-1)), (Some(Hit::Channel(3)), Some(Hit::Channel(3))));
        assert_eq!(Walk::new(Vec::new(), None).moved(1), None);
    }

    #[test]
    fn what_was_drawn_later_lies_on_top() {
        let mut hits = Hits::default();
        hits.add(Rect::new(0, 0, 10, 10), Hit::Row(1));
        hits.add(Rect::new(2, 2, 1, 1), Hit::Row(2));
        hits.add(Rect::new(5, 5, 0, 1), Hit::Row(3));
        assert_eq!((hits.at(2, 2), hits.at(5, 5), hits.at(10, 0)), (Some(Hit::Row(2)), Some(Hit::Row(1)), None));
    }
}
