//! What a user chooses from: views, orders of the sites, attention maps.

/// One of the views: the place of its row in [`super::view::VIEWS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View(pub(super) usize);

/// What the table of sites is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// The forward pass.
    Order,
    /// Local SQNR, the smallest first.
    Local,
    /// Cumulative SQNR, the smallest first.
    Cumulative,
    /// RMSE/step, the largest first.
    Steps,
    /// Clipped fraction, the largest first.
    Clipped,
    /// KL with only this site quantized, the largest first.
    Alone,
}

impl Sort {
    const ALL: [Self; 6] = [Self::Order, Self::Local, Self::Cumulative, Self::Steps, Self::Clipped, Self::Alone];

    /// The next column.
    #[must_use]
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|s| *s == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// Its name on the screen.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Order => "forward pass",
            Self::Local => "local SQNR",
            Self::Cumulative => "cumulative SQNR",
            Self::Steps => "RMSE/step",
            Self::Clipped => "clipped",
            Self::Alone => "alone KL",
        }
    }

    /// Whether its values grow down the table: a small SQNR is bad and comes first.
    #[must_use]
    pub const fn ascends(self) -> bool {
        matches!(self, Self::Order | Self::Local | Self::Cumulative)
    }
}

/// Whose values are shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole site.
    Site,
    /// The group of the channel under the cursor.
    Group,
    /// That channel.
    Channel,
}

impl Scope {
    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Site => Self::Group,
            Self::Group => Self::Channel,
            Self::Channel => Self::Site,
        }
    }
}

/// What the attention map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Map {
    /// Probabilities of the float run.
    Float,
    /// Probabilities of the quantized run, after their quantizer.
    Quantized,
    /// Quantized less float.
    Difference,
    /// Root mean square of that difference for each query token.
    TokenError,
}

impl Map {
    /// The next map.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Float => Self::Quantized,
            Self::Quantized => Self::Difference,
            Self::Difference => Self::TokenError,
            Self::TokenError => Self::Float,
        }
    }

    /// Its name on the screen.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Quantized => "quantized",
            Self::Difference => "quantized - float",
            Self::TokenError => "RMSE of each token",
        }
    }
}
