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
    /// Whether the grid is shifted before it is padded to whole windows, as timm does, and not behind it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shifted_first: bool,
}

impl Windows {
    /// Windows of `size` rows and columns, shifted by `shift`, each for itself.
    #[must_use]
    pub const fn new(size: (usize, usize), shift: (usize, usize)) -> Self {
        Self { size, shift, all: false, shifted_first: false }
    }

    /// Rows and columns of a grid that is padded at the bottom and right to whole windows.
    #[must_use]
    pub const fn padded(&self, (rows, columns): (usize, usize)) -> (usize, usize) {
        let (height, width) = self.size;
        if height == 0 || width == 0 { (rows, columns) } else { (rows.next_multiple_of(height), columns.next_multiple_of(width)) }
    }

    /// Row and column among the windows of a token, counted window by window.
    const fn within(&self, columns: usize, token: usize) -> (usize, usize) {
        let (height, width) = self.size;
        let (window, inside, across) = (token / (height * width), token % (height * width), columns / width);
        (window / across * height + inside / width, window % across * width + inside % width)
    }

    /// Row and column of the grid to row and column among the windows.
    const fn shifted(&self, grid: (usize, usize), (row, column): (usize, usize)) -> (usize, usize) {
        let (rows, columns) = if self.shifted_first { grid } else { self.padded(grid) };
        ((row + rows - self.shift.0) % rows, (column + columns - self.shift.1) % columns)
    }

    /// Row and column among the windows to row and column of the grid or of what it is padded with; whether that lies behind the grid.
    const fn unshifted(&self, grid: (usize, usize), (row, column): (usize, usize)) -> ((usize, usize), bool) {
        let (rows, columns) = if self.shifted_first { grid } else { self.padded(grid) };
        if self.shifted_first && (row >= rows || column >= columns) {
            return ((row, column), true);
        }
        let (row, column) = ((row + self.shift.0) % rows, (column + self.shift.1) % columns);
        ((row, column), row >= grid.0 || column >= grid.1)
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
                let (area, (rows, columns)) = (windows.size.0 * windows.size.1, windows.padded(self.grid));
                rows * columns / if area == 0 { 1 } else { area }
            }
            None => 1,
        }
    }

    /// Tokens that fill the last windows up where the grid does not.
    #[must_use]
    pub const fn padding(&self) -> usize {
        match self.windows {
            Some(windows) => {
                let (rows, columns) = windows.padded(self.grid);
                rows * columns - self.grid.0 * self.grid.1
            }
            None => 0,
        }
    }

    /// Tokens that lie nowhere.
    const fn nowhere(&self) -> usize {
        self.prefix * self.parts() + self.padding()
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

    /// Row and column among the windows of a token that is not before them; it may be padding.
    const fn among(&self, windows: Windows, token: usize) -> Option<(usize, usize)> {
        let of_window = self.prefix + windows.size.0 * windows.size.1;
        match (token % of_window).checked_sub(self.prefix) {
            Some(inside) => Some(windows.within(windows.padded(self.grid).1, token / of_window * (of_window - self.prefix) + inside)),
            None => None,
        }
    }

    /// The token at a row and column among the windows.
    const fn token_among(&self, windows: Windows, (row, column): (usize, usize)) -> usize {
        let (height, width) = windows.size;
        let window = row / height * (windows.padded(self.grid).1 / width) + column / width;
        window * (self.prefix + height * width) + self.prefix + row % height * width + column % width
    }

    /// Row and column of a token in the grid, with the shift undone; `None` for tokens that lie nowhere.
    #[must_use]
    pub const fn place(&self, token: usize) -> Option<(usize, usize)> {
        if token >= self.tokens() {
            return None;
        }
        let Some(windows) = self.windows else {
            return match token.checked_sub(self.prefix) {
                Some(patch) => Some((patch / self.grid.1, patch % self.grid.1)),
                None => None,
            };
        };
        let Some(among) = self.among(windows, token) else { return None };
        match windows.unshifted(self.grid, among) {
            (place, false) => Some(place),
            (_, true) => None,
        }
    }

    /// Row and column among the windows of a token, where it has such: two of a window that a shift brought together lie on both sides of
    /// the last rows or columns that it moved.
    #[must_use]
    pub const fn is_wrapped(&self, token: usize) -> (bool, bool) {
        let Some(windows) = self.windows else { return (false, false) };
        let Some((row, column)) = self.among(windows, token) else { return (false, false) };
        let (rows, columns) = windows.padded(self.grid);
        (row + windows.shift.0 >= rows, column + windows.shift.1 >= columns)
    }

    /// The token at a row and column of the grid: the inverse of [`Self::place`].
    #[must_use]
    pub const fn token_at(&self, row: usize, column: usize) -> Option<usize> {
        if row >= self.grid.0 || column >= self.grid.1 {
            return None;
        }
        match self.windows {
            None => Some(self.prefix + row * self.grid.1 + column),
            Some(windows) => Some(self.token_among(windows, windows.shifted(self.grid, (row, column)))),
        }
    }

    /// The place of a token when tokens are counted as people read: those that lie nowhere first, then row by row over the picture.
    #[must_use]
    pub const fn order_of(&self, token: usize) -> usize {
        let Some(windows) = self.windows else { return token };
        let Some(among) = self.among(windows, token) else {
            let of_window = self.prefix + windows.size.0 * windows.size.1;
            return token / of_window * self.prefix + token % of_window;
        };
        let ((rows, columns), (_, wide)) = (self.grid, windows.padded(self.grid));
        match windows.unshifted(self.grid, among) {
            ((row, column), false) => self.nowhere() + row * columns + column,
            ((row, column), true) if row < rows => self.prefix * self.parts() + row * (wide - columns) + column - columns,
            ((row, column), true) => self.prefix * self.parts() + rows * (wide - columns) + (row - rows) * wide + column,
        }
    }

    /// The token at a place of that order: the inverse of [`Self::order_of`].
    #[must_use]
    pub const fn token_in_order(&self, at: usize) -> usize {
        let (before, columns) = (self.prefix * self.parts(), self.grid.1);
        if let Some(patch) = at.checked_sub(self.nowhere())
            && columns > 0
        {
            return match self.token_at(patch / columns, patch % columns) {
                Some(token) => token,
                None => at,
            };
        }
        let Some(windows) = self.windows else { return at };
        let Some(padding) = at.checked_sub(before) else {
            return at / self.prefix * (self.prefix + windows.size.0 * windows.size.1) + at % self.prefix;
        };
        let (padded, beside) = (windows.padded(self.grid), windows.padded(self.grid).1 - columns);
        let place = match padding.checked_sub(self.grid.0 * beside) {
            Some(below) => (self.grid.0 + below / padded.1, below % padded.1),
            None => (padding / beside, columns + padding % beside),
        };
        self.token_among(windows, if windows.shifted_first { place } else { windows.shifted(padded, place) })
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
    fn padding_fills_the_last_windows_before_or_behind_a_shift() {
        for (shift, shifted_first) in [((0, 0), false), ((1, 1), false), ((1, 1), true), ((2, 1), true)] {
            let windows = Windows { shifted_first, ..Windows::new((3, 3), shift) };
            let layout = TokenLayout::grid(0, (4, 5)).in_windows(windows);
            assert_eq!((layout.tokens(), layout.padding(), layout.window_count(), layout.window_tokens()), (36, 16, 4, 9));
            assert_eq!((0..36).filter(|token| layout.place(*token).is_none()).count(), 16);
            assert!((0..36).all(|token| layout.token_in_order(layout.order_of(token)) == token));
            assert!((0..20).all(|at| layout.place(layout.token_at(at / 5, at % 5).unwrap()) == Some((at / 5, at % 5))));
            assert_eq!(layout.outside().count(), 16);
        }
        // Shifted by one behind the padding the first row comes last; before it, it is the last but two.
        let layout = |shifted_first| TokenLayout::grid(0, (4, 3)).in_windows(Windows { shifted_first, ..Windows::new((3, 3), (1, 0)) });
        assert_eq!((layout(false).place(15), layout(true).place(9), layout(true).place(15)), (Some((0, 0)), Some((0, 0)), None));
        assert_eq!((layout(false).is_wrapped(15), layout(false).is_wrapped(12)), ((true, false), (false, false)));
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
