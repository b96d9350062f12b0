//! Where tokens lie over the picture: a grid behind some tokens that lie nowhere, or windows of a grid that may be shifted. It says
//! which row of a softmax belongs to which head and token; a network gathers its windows by it, and a screen draws by it.

use schemars::JsonSchema;
use serde::Serialize;

/// Attention within windows: the tokens of one window stand one behind the other, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Windows {
    /// Rows and columns of a window.
    pub size: (usize, usize),
    /// How far the windows are shifted down and right; what leaves the grid comes back on the other side.
    pub shift: (usize, usize),
    /// Whether tokens see those of all windows too, and only stand in the order of windows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Windows {
    /// Windows of `size` rows and columns, shifted by `shift`, each for itself.
    #[must_use]
    pub const fn new(size: (usize, usize), shift: (usize, usize)) -> Self {
        Self { size, shift, all: false }
    }
}

/// How tokens lie over the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenLayout {
    /// Tokens before the patches (class token, registers), of every window where there are windows.
    pub prefix: usize,
    /// Rows and columns of the patch grid.
    pub grid: (usize, usize),
    /// The windows, where attention is within windows; without them tokens stand row by row and see one another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// What the tokens look at, where that is not themselves: tokens before the patches, rows and columns of their grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looks_at: Option<(usize, (usize, usize))>,
    /// Whether the tokens are queries, which lie nowhere over the picture: the grid is only the order in which they are shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub queries: bool,
}

impl TokenLayout {
    /// Tokens row by row over a grid, behind `prefix` others.
    #[must_use]
    pub const fn grid(prefix: usize, grid: (usize, usize)) -> Self {
        Self { prefix, grid, windows: None, looks_at: None, queries: false }
    }

    /// Queries, in rows of as many as make the grid squarest.
    #[must_use]
    pub fn of_queries(count: usize) -> Self {
        let rows = (1..=count).take_while(|rows| rows * rows <= count).filter(|rows| count.is_multiple_of(*rows)).last().unwrap_or(1);
        Self { queries: true, ..Self::grid(0, (rows, count / rows)) }
    }

    /// The same tokens where they look at others, which lie as `keys` says.
    #[must_use]
    pub const fn looking_at(self, keys: Self) -> Self {
        Self { looks_at: Some((keys.prefix, keys.grid)), ..self }
    }

    /// How the tokens lie that these look at.
    #[must_use]
    pub const fn keys(&self) -> Self {
        match self.looks_at {
            Some((prefix, grid)) => Self::grid(prefix, grid),
            None => *self,
        }
    }

    /// Values of a softmax row: tokens that one of these sees.
    #[must_use]
    pub const fn seen(&self) -> usize {
        self.keys().window_tokens()
    }

    /// Tokens that lie nowhere in the grid, in their order.
    pub fn outside(&self) -> impl Iterator<Item = usize> {
        let layout = *self;
        (0..layout.nowhere()).map(move |at| layout.token_in_order(at))
    }

    /// The same tokens in the order of windows.
    #[must_use]
    pub const fn in_windows(self, windows: Windows) -> Self {
        Self { windows: Some(windows), ..self }
    }

    /// Number of tokens, `N`.
    #[must_use]
    pub const fn tokens(&self) -> usize {
        self.nowhere() + self.grid.0 * self.grid.1
    }

    /// Windows of the grid, whether or not tokens see those of others; 1 without windows.
    const fn parts(&self) -> usize {
        match self.windows {
            Some(windows) => {
                let area = windows.size.0 * windows.size.1;
                self.grid.0 * self.grid.1 / if area == 0 { 1 } else { area }
            }
            None => 1,
        }
    }

    /// Tokens that lie nowhere.
    const fn nowhere(&self) -> usize {
        self.prefix * self.parts()
    }

    /// Number of tokens that see one another, `n`: those of a window, or all.
    #[must_use]
    pub const fn window_tokens(&self) -> usize {
        match self.windows {
            Some(windows) if !windows.all => self.prefix + windows.size.0 * windows.size.1,
            _ => self.tokens(),
        }
    }

    /// Number of windows of one picture that do not see one another; 1 without windows.
    #[must_use]
    pub const fn window_count(&self) -> usize {
        self.tokens() / if self.window_tokens() == 0 { 1 } else { self.window_tokens() }
    }

    /// Row and column of a token in the grid, with the shift undone; `None` for tokens that lie nowhere.
    #[must_use]
    pub const fn place(&self, token: usize) -> Option<(usize, usize)> {
        let (rows, columns) = self.grid;
        if token >= self.tokens() {
            return None;
        }
        let Some(Windows { size: (height, width), shift, .. }) = self.windows else {
            return match token.checked_sub(self.prefix) {
                Some(patch) => Some((patch / columns, patch % columns)),
                None => None,
            };
        };
        let (window, inside) = (token / (self.prefix + height * width), token % (self.prefix + height * width));
        let Some(inside) = inside.checked_sub(self.prefix) else { return None };
        let across = columns / width;
        let row = window / across * height + inside / width;
        let column = window % across * width + inside % width;
        Some(((row + shift.0) % rows, (column + shift.1) % columns))
    }

    /// The token at a row and column of the grid: the inverse of [`Self::place`].
    #[must_use]
    pub const fn token_at(&self, row: usize, column: usize) -> Option<usize> {
        let (rows, columns) = self.grid;
        if row >= rows || column >= columns {
            return None;
        }
        let Some(Windows { size: (height, width), shift, .. }) = self.windows else {
            return Some(self.prefix + row * columns + column);
        };
        let (row, column) = ((row + rows - shift.0) % rows, (column + columns - shift.1) % columns);
        let window = row / height * (columns / width) + column / width;
        Some(window * (self.prefix + height * width) + self.prefix + row % height * width + column % width)
    }

    /// The place of a token when tokens are counted as people read: those that lie nowhere first, then row by row over the picture.
    #[must_use]
    pub const fn order_of(&self, token: usize) -> usize {
        match (self.place(token), self.windows) {
            (Some((row, column)), _) => self.nowhere() + row * self.grid.1 + column,
            (None, Some(Windows { size: (height, width), .. })) if self.prefix > 0 => {
                let of_window = self.prefix + height * width;
                token / of_window * self.prefix + token % of_window
            }
            (None, _) => token,
        }
    }

    /// The token at a place of that order: the inverse of [`Self::order_of`].
    #[must_use]
    pub const fn token_in_order(&self, at: usize) -> usize {
        match (at.checked_sub(self.nowhere()), self.windows) {
            (Some(patch), _) if self.grid.1 > 0 => match self.token_at(patch / self.grid.1, patch % self.grid.1) {
                Some(token) => token,
                None => at,
            },
            (None, Some(Windows { size: (height, width), .. })) => at / self.prefix * (self.prefix + height * width) + at % self.prefix,
            _ => at,
        }
    }

    /// The softmax row of a query token in a head: window by window, then head by head, then token by token.
    #[must_use]
    pub const fn softmax_row(&self, heads: usize, head: usize, token: usize) -> usize {
        let n = self.window_tokens();
        (token / n * heads + head) * n + token % n
    }

    /// Head and query token of a softmax row: the inverse of [`Self::softmax_row`].
    #[must_use]
    pub const fn head_and_token(&self, heads: usize, row: usize) -> (usize, usize) {
        let n = self.window_tokens();
        (row / n % heads, row / (heads * n) * n + row % n)
    }

    /// The key token of a column in the softmax row of `query`.
    #[must_use]
    pub const fn key(&self, query: usize, column: usize) -> usize {
        if self.looks_at.is_some() {
            return column;
        }
        let n = self.window_tokens();
        query / n * n + column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_token_lies_nowhere_and_patches_row_by_row() {
        let layout = TokenLayout::grid(1, (2, 3));
        assert_eq!((layout.tokens(), layout.window_tokens(), layout.window_count()), (7, 7, 1));
        assert_eq!((layout.place(0), layout.place(1), layout.place(6), layout.place(7)), (None, Some((0, 0)), Some((1, 2)), None));
        assert_eq!((layout.token_at(1, 2), layout.token_at(2, 0)), (Some(6), None));
        assert!((0..7).all(|token| layout.order_of(token) == token && layout.token_in_order(token) == token));
        assert_eq!((layout.softmax_row(4, 2, 5), layout.head_and_token(4, 19), layout.key(5, 3)), (19, (2, 5), 3));
    }

    #[test]
    fn windows_with_a_class_token_each_are_counted_as_people_read() {
        let windowed = TokenLayout::grid(1, (4, 6)).in_windows(Windows::new((2, 3), (0, 0)));
        assert_eq!((windowed.tokens(), windowed.window_tokens(), windowed.window_count()), (28, 7, 4));
        assert_eq!((windowed.place(0), windowed.place(1), windowed.place(7), windowed.place(8)), (None, Some((0, 0)), None, Some((0, 3))));
        let orders: Vec<usize> = (0..28).map(|token| windowed.order_of(token)).collect();
        assert_eq!(orders[..9], [0, 4, 5, 6, 10, 11, 12, 1, 7]);
        assert!((0..28).all(|token| windowed.token_in_order(windowed.order_of(token)) == token));
        let all = TokenLayout { windows: windowed.windows.map(|windows| Windows { all: true, ..windows }), ..windowed };
        assert_eq!((all.tokens(), all.window_tokens(), all.window_count(), all.place(8)), (28, 28, 1, Some((0, 3))));
        assert_eq!(windowed.outside().collect::<Vec<_>>(), [0, 7, 14, 21]);
        let queries = TokenLayout::of_queries(300);
        assert_eq!((queries.grid, queries.tokens(), TokenLayout::of_queries(7).grid), ((15, 20), 300, (1, 7)));
        assert_eq!((all.head_and_token(3, all.softmax_row(3, 2, 20)), all.key(20, 5)), ((2, 20), 5));
    }

    #[test]
    fn windows_cover_the_grid_once_and_shift_around_it() {
        let shifted = TokenLayout::grid(0, (4, 6)).in_windows(Windows::new((2, 2), (1, 1)));
        assert_eq!((shifted.window_count(), shifted.place(0), shifted.place(3)), (6, Some((1, 1)), Some((2, 2))));
        assert_eq!(shifted.place(23), Some((0, 0)), "the last token comes back at the first corner");
        for token in 0..24 {
            let (row, column) = shifted.place(token).unwrap();
            assert_eq!(shifted.token_at(row, column), Some(token));
            assert_eq!((shifted.order_of(token), shifted.token_in_order(6 * row + column)), (6 * row + column, token));
            for head in 0..3 {
                assert_eq!(shifted.head_and_token(3, shifted.softmax_row(3, head, token)), (head, token));
            }
        }
        assert_eq!((shifted.softmax_row(3, 2, 5), shifted.key(5, 0), shifted.key(5, 3)), (4 * 5 + 1, 4, 7));
    }
}
