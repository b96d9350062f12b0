//! What instance-aware means: the same quantizers, two pictures, other groups.

use igq::Result;
use igq::progress::Cancel;
use igq::session::{Options, Session};

fn main() -> Result<()> {
    let options = Options::default();
    let session = Session::open(&options, &|_| ())?;
    let report = |picture| Ok::<_, igq::Error>(session.run(picture, &options.settings, &Cancel::default())?.report);
    let (first, second) = (report(0)?, report(1)?);
    for (a, b) in first.sites.iter().zip(&second.sites) {
        let moved = a.assignment.iter().zip(&b.assignment).filter(|(a, b)| a != b).count();
        println!("{:<14} {moved:>4} of {:>4} in another group", a.site.to_string(), a.channels);
    }
    Ok(())
}
