//! Step 6 of the data flow: one question a file, with its report, its search and its verdict. No threads of their own, no screen.

pub mod allocate;
pub mod both_ways;
pub mod coco;
pub mod compare;
pub mod counts;
pub mod curve;
pub mod diff;
pub mod dump;
pub mod evaluate;
pub mod export;
pub mod fisher;
pub mod flips;
pub mod inspect;
pub mod judge;
pub mod merge;
pub mod mixed;
pub mod perturbation;
pub mod perturbation_report;
pub mod regions;
pub mod repair;
pub mod sensitivity;
pub mod shard;
pub mod suggest;
pub mod tally;
pub mod trials;
pub mod verify;
