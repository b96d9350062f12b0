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

    /// The title of its column.
    #[must_use]
    pub const fn column(self) -> &'static str {
        match self {
            Self::Order => "site",
            Self::Local => "local dB",
            Self::Cumulative => "cum dB",
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

/// What stands beside the attention map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// The group of every row.
    Groups,
    /// The maps of all heads.
    Heads,
    /// The picture, as bright as the attention to its patches.
    Picture,
}

impl Beside {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Groups, Self::Heads, Self::Picture];

    /// Its name in commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Heads => "heads",
            Self::Picture => "picture",
        }
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Groups => Self::Heads,
            Self::Heads => Self::Picture,
            Self::Picture => Self::Groups,
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Float, Self::Quantized, Self::Difference, Self::TokenError];

    /// Its name in commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Quantized => "quantized",
            Self::Difference => "difference",
            Self::TokenError => "rmse",
        }
    }

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

/// What is drawn over the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// The boxes of both runs, as their fates have it.
    Both,
    /// Those of the float run.
    Float,
    /// Those of the quantized run.
    Quantized,
    /// The masks of the float run.
    FloatMasks,
    /// Those of the quantized run.
    Masks,
    /// What is inside of only one run's mask.
    Difference,
    /// None.
    None,
}

impl Overlay {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Both, Self::Float, Self::Quantized, Self::FloatMasks, Self::Masks, Self::Difference, Self::None];

    /// Whether it shows masks.
    #[must_use]
    pub const fn has_masks(self) -> bool {
        matches!(self, Self::FloatMasks | Self::Masks | Self::Difference)
    }

    /// Its name on the screen and in commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Float => "float",
            Self::Quantized => "quantized",
            Self::FloatMasks => "float-masks",
            Self::Masks => "masks",
            Self::Difference => "mask-difference",
            Self::None => "none",
        }
    }

    /// What stands over the picture.
    #[must_use]
    pub fn title(self) -> String {
        if self.has_masks() { self.name().into() } else { format!("boxes: {}", self.name()) }
    }

    /// The next one, of a model with masks or without.
    #[must_use]
    pub fn next(self, masks: bool) -> Self {
        let fits = |one: &Self| masks || !one.has_masks();
        let mut round = Self::ALL.into_iter().cycle().skip_while(|one| *one != self).skip(1);
        round.find(fits).unwrap_or(Self::Both)
    }
}
