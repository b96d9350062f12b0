//! The classes of a labelled set: from the name of a folder or an entry of a list to the number of a class.

/// The synset ids of ImageNet-1k, in the order of its classes.
static SYNSETS: &str = include_str!("../../assets/imagenet-synsets.txt");

/// What a name says of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// Exactly this one.
    Class(usize),
    /// Several classes have the name.
    Several(Vec<usize>),
    /// None has it.
    Nothing,
}

/// The class that `name` means for a model of `classes` classes with `labels`: a label, whatever the case and with `_` for spaces and
/// slashes; a number; with 1,000 classes a synset id of ImageNet.
#[must_use]
pub fn named(name: &str, labels: &[String], classes: usize) -> Named {
    let name = name.trim();
    let same = |label: &String| label.eq_ignore_ascii_case(name) || label.replace(['/', ' '], "_").eq_ignore_ascii_case(name);
    let all =
        |fits: &dyn Fn(&String) -> bool| labels.iter().enumerate().filter(|(_, l)| fits(l)).map(|(class, _)| class).collect::<Vec<_>>();
    // Names may differ in their case alone: what is the same to the letter comes first.
    let exact = all(&|label| label == name);
    let found = if exact.is_empty() { all(&same) } else { exact };
    match found.as_slice() {
        [class] => return Named::Class(*class),
        [] => {}
        _ => return Named::Several(found),
    }
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    if let Some(class) = name.parse().ok().filter(|class| digits && *class < classes) {
        return Named::Class(class);
    }
    let synset = || (classes == 1000).then(|| SYNSETS.lines().position(|synset| synset == name))?;
    synset().map_or(Named::Nothing, Named::Class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_synsets() {
        let labels: Vec<String> = ["cat", "crane", "T-shirt/top", "crane"].map(String::from).to_vec();
        assert_eq!(named("Cat", &labels, 4), Named::Class(0));
        assert_eq!(named("t-shirt_top", &labels, 4), Named::Class(2));
        assert_eq!(named("+3", &labels, 4), Named::Nothing);
        assert_eq!(named("CAT", &["cat", "CAT"].map(String::from), 2), Named::Class(1));
        assert_eq!(named("Cat", &["cat", "CAT"].map(String::from), 2), Named::Several(vec![0, 1]));
        assert_eq!(named("crane", &labels, 4), Named::Several(vec![1, 3]));
        assert_eq!(named("3", &labels, 4), Named::Class(3));
        assert_eq!(named("4", &labels, 4), Named::Nothing);
        assert_eq!(named("n02012849", &[], 1000), Named::Class(134));
        assert_eq!(named("n01440764", &[], 1000), Named::Class(0));
        assert_eq!(named("n01440764", &[], 10), Named::Nothing);
        assert_eq!(SYNSETS.lines().count(), 1000);
    }
}
