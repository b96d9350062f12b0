use candle_core::{Tensor, D, IndexOp};
use igq::{input::*, model::*, quant::*, model::tap::Cancel};
use std::time::Instant;
fn main() {
    let t = Instant::now();
    let model = Model::open("fashion-vit").unwrap();
    println!("load {:?} {} {:?}", t.elapsed(), model.describe(), model.notes);
    let pre = Preprocess::from_config(model.raw_config.as_ref(), None, 1, (28, 28)).unwrap();
    println!("{}", pre.describe());
    let batch = |s: &[PictureSource]| Tensor::cat(&s.iter().map(|p| pre.apply(&p.load().unwrap()).unwrap().tensor).collect::<Vec<_>>(), 0).unwrap();
    let t = Instant::now();
    let cal = batch(&PictureSet::fashion_calibration().pictures);
    println!("cal pics {:?}", t.elapsed());
    let t = Instant::now();
    let calib = calibrate(model.network(), &[cal], &Cancel::default(), |_| ()).unwrap();
    println!("calibrate {:?}", t.elapsed());
    let test = PictureSet::fashion_test();
    let labels: Vec<usize> = test.pictures.iter().map(|p| p.load().unwrap().label.unwrap()).collect();
    let batches: Vec<Tensor> = test.pictures.chunks(50).map(batch).collect();
    let run = |tap: &mut dyn Tap| -> Vec<Vec<f32>> { batches.iter().flat_map(|b| forward(model.network(), b, tap).unwrap().to_vec2::<f32>().unwrap()).collect() };
    let t = Instant::now();
    let float = run(&mut Identity);
    println!("float 1000 {:?}", t.elapsed());
    let am = |v: &[f32]| (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b])).unwrap();
    let sm = |v: &[f32]| { let m = v.iter().cloned().fold(f32::MIN, f32::max); let e: Vec<f64> = v.iter().map(|x| ((x - m) as f64).exp()).collect(); let s: f64 = e.iter().sum(); e.into_iter().map(|x| x / s).collect::<Vec<_>>() };
    println!("float top1 {}", float.iter().zip(&labels).filter(|(l, y)| am(l) == **y).count());
    let cache = Cache::default();
    let rows = [("layer", 8), ("layer-dynamic", 8), ("contiguous", 8), ("channel", 8), ("sorted", 8), ("igq", 4), ("igq", 8), ("igq", 16)];
    for keep in [vec!["patch", "head"]] { for bits in [4u8] { for (m, g) in rows {
        let mut s = Settings::default();
        s.method = m.parse().unwrap(); let b = BitWidth::new(bits).unwrap();
        (s.wbits, s.abits, s.sbits) = (b, b, b);
        s.groups = GroupCount::new(g).unwrap(); s.row_groups = s.groups;
        s.keep_float = keep.iter().map(|k| k.parse().unwrap()).collect();
        let t = Instant::now();
        let p = plan(&model, &calib, &s, &cache).unwrap();
        let pt = t.elapsed(); let t = Instant::now();
        let c = Cancel::default();
        let q = run(&mut FakeQuantize::new(&p, &c, unobserved));
        let top1 = q.iter().zip(&labels).filter(|(l, y)| am(l) == **y).count();
        let kl: f64 = float.iter().zip(&q).map(|(f, q)| { let (f, q) = (sm(f), sm(q)); f.iter().zip(&q).map(|(a, b)| a * (a / b).ln()).sum::<f64>() }).sum::<f64>() / 1000.0;
        println!("{keep:?} {bits} {m} {g}: {:.1} {kl:.4} plan {pt:?} run {:?}", top1 as f64 / 10.0, t.elapsed());
    } } }
}
