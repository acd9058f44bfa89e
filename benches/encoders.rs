//! Weights per second and weighted error of every encoder, as a table; with `--peer`, against ggml's (see
//! `scripts/compare_encoders.sh`, which builds the program for it).
//!
//!     cargo bench --bench encoders -- [--peer PROGRAM] [--isa NAME] [TYPE...]
//!
//! 64 tensors of [8, 1024]: a third each normal, Student's t with five degrees of freedom, Laplace; scales between 0.005
//! and 0.08. Each is encoded without importance, and with log-normal ones of sigma 0.5 and 1. Errors are
//! Σ importance · (x − x̂)² of a tensor by Σ importance · x², summed over tensors, and given as parts of the peer's.
//! Rates are of one core's processor time, medians of three rounds in turn with the peer's.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use formats::block::{DType, Effort, Encode, Objective, TYPES};
use kernels::{Codec, Isa, codec_for};

const TENSORS: usize = 64;
const ROWS: usize = 8;
const COLS: usize = 1024;
const EACH: usize = ROWS * COLS;
const ROUNDS: usize = 3;

/// Splitmix, and what distributions make of it.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    fn student(&mut self) -> f64 {
        let chi: f64 = (0..5).map(|_| self.normal().powi(2)).sum();
        self.normal() / (chi / 5.0).sqrt()
    }

    fn laplace(&mut self) -> f64 {
        let u = self.uniform() - 0.5;
        -u.signum() * (1.0 - 2.0 * u.abs()).max(f64::MIN_POSITIVE).ln()
    }
}

/// Weights, and for each kind of importance one number a weight.
fn tensors() -> (Vec<f32>, [Option<Vec<f32>>; 3]) {
    let mut random = Random(1);
    let mut x = Vec::with_capacity(TENSORS * EACH);
    for t in 0..TENSORS {
        let scale = 0.02 * 2f64.powf(4.0 * random.uniform() - 2.0);
        for _ in 0..EACH {
            let v = match t % 3 {
                0 => random.normal(),
                1 => random.student(),
                _ => random.laplace(),
            };
            x.push((v * scale) as f32);
        }
    }
    let mut importance = |sigma: f64| {
        let mut w = Vec::with_capacity(TENSORS * EACH);
        for _ in 0..TENSORS {
            let columns: Vec<f32> = (0..COLS).map(|_| (sigma * random.normal()).exp() as f32).collect();
            (0..ROWS).for_each(|_| w.extend_from_slice(&columns));
        }
        Some(w)
    };
    let w = [None, importance(0.5), importance(1.0)];
    (x, w)
}

/// Sum over tensors of weighted error by weighted energy.
fn error(x: &[f32], y: &[f32], w: Option<&[f32]>) -> f64 {
    let one = |t: usize| {
        let (mut lost, mut energy) = (0.0, 0.0);
        for j in t * EACH..(t + 1) * EACH {
            let (w, x) = (w.map_or(1.0, |w| f64::from(w[j])), f64::from(x[j]));
            lost += w * (x - f64::from(y[j])).powi(2);
            energy += w * x * x;
        }
        lost / energy
    };
    (0..TENSORS).map(one).sum()
}

fn seconds() -> f64 {
    #[cfg(unix)]
    {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        t.tv_sec as f64 + 1e-9 * t.tv_nsec as f64
    }
    #[cfg(not(unix))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed().as_secs_f64()
    }
}

fn save(path: &Path, x: impl Iterator<Item = f32>) {
    let bytes: Vec<u8> = x.flat_map(f32::to_le_bytes).collect();
    std::fs::write(path, bytes).expect("the scratch folder can be written");
}

/// ggml's encoder: rates (encoding, decoding) of one round, and what came of it.
fn peer(program: &Path, folder: &Path, info: &str, kind: usize) -> (f64, f64, Vec<f32>) {
    let [tensors, rows, cols] = [TENSORS, ROWS, COLS].map(|n| n.to_string());
    let w = if kind == 0 { PathBuf::from("-") } else { folder.join(format!("w{kind}")) };
    let out = folder.join("decoded");
    let run = Command::new(program)
        .args([info, &tensors, &rows, &cols])
        .args([&folder.join("x"), &w, &out])
        .arg("1")
        .output()
        .expect("the peer's program can be run");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let times: Vec<f64> = String::from_utf8_lossy(&run.stdout)
        .split_whitespace()
        .map(|t| t.parse().expect("seconds"))
        .collect();
    let decoded = std::fs::read(out).expect("the peer has written it");
    let decoded = decoded.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let rate = |t: f64| (TENSORS * EACH) as f64 / t / 1e6;
    (rate(times[0]), rate(times[1]), decoded)
}

/// Millions of weights a second.
fn rate(codec: &dyn Codec, x: &[f32], how: &Encode<'_>, bytes: &mut [u8]) -> f64 {
    let from = seconds();
    codec.encode(x, how, bytes);
    x.len() as f64 / (seconds() - from) / 1e6
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut program, mut isa, mut names) = (None, Isa::chosen().expect("GGUFKIT_ISA is right"), Vec::new());
    while let Some(a) = arguments.next() {
        match a.as_str() {
            "--peer" => program = arguments.next().map(PathBuf::from),
            "--isa" => {
                let name = arguments.next().expect("--isa NAME");
                isa = *Isa::available()
                    .iter()
                    .find(|i| i.name() == name)
                    .expect("an instruction set of this machine");
            }
            _ => names.push(DType::from_name(&a).expect("the name of a type")),
        }
    }
    let (x, w) = tensors();
    let folder = tempfile::tempdir().expect("there is a scratch folder");
    save(&folder.path().join("x"), x.iter().copied());
    for (kind, w) in w.iter().enumerate().skip(1) {
        let w = w.as_ref().expect("all but the first have importance");
        save(
            &folder.path().join(format!("w{kind}")),
            (0..TENSORS).flat_map(|t| w[t * EACH..][..COLS].iter().copied()),
        );
    }

    println!(
        "Instruction set: {}. Million weights a second on one core; errors as parts of ggml's (without it, relative).\n",
        isa.name()
    );
    println!(
        "| type | bits | fast | normal | thorough | ggml | normal / ggml | decode | ggml | error | σ 0.5 | σ 1 | fast | σ 1 | thorough | σ 1 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for info in
        TYPES.iter().filter(|t| t.weights > 1 && !t.name.starts_with("q8_1") && !t.name.starts_with("q8_k"))
    {
        if !names.is_empty() && !names.contains(&info.dtype) {
            continue;
        }
        let Some(codec) = codec_for(info.dtype, isa) else { continue };
        let mut bytes = vec![0; info.dtype.bytes_for(x.len() as u64).expect("whole blocks") as usize];
        let mut y = vec![0f32; x.len()];
        let (mut rates, mut decodes, mut theirs) =
            ([const { Vec::new() }; 3], Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..ROUNDS {
            for (i, (effort, _)) in Effort::ALL.into_iter().enumerate() {
                let how = Encode { effort, objective: Some(Objective::Error), importance: None };
                rates[i].push(rate(&*codec, &x, &how, &mut bytes));
            }
            let from = seconds();
            codec.decode(&bytes, &mut y);
            decodes.push(x.len() as f64 / (seconds() - from) / 1e6);
            if let Some(program) = &program {
                let (encode, decode, _) = peer(program, folder.path(), info.name, 0);
                theirs[0].push(encode);
                theirs[1].push(decode);
            }
        }
        let mut lost = [[0.0; 3]; 3];
        for (kind, w) in w.iter().enumerate() {
            let reference = program.as_ref().map(|p| peer(p, folder.path(), info.name, kind).2);
            let unit = reference.map_or(TENSORS as f64, |y| error(&x, &y, w.as_deref()));
            for (i, (effort, _)) in Effort::ALL.into_iter().enumerate() {
                let how = Encode { effort, objective: Some(Objective::Error), importance: w.as_deref() };
                codec.encode(&x, &how, &mut bytes);
                codec.decode(&bytes, &mut y);
                lost[i][kind] = error(&x, &y, w.as_deref()) / unit;
            }
        }
        let [fast, normal, thorough] = rates.map(median);
        let peers = theirs.map(|v| if v.is_empty() { f64::NAN } else { median(v) });
        let show = |e: f64| if program.is_some() { format!("{e:.3}") } else { format!("{e:.2e}") };
        println!(
            "| {} | {:.2} | {fast:.0} | {normal:.0} | {thorough:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            info.name,
            info.dtype.bits_per_weight(),
            peers[0],
            normal / peers[0],
            median(decodes),
            peers[1],
            show(lost[1][0]),
            show(lost[1][1]),
            show(lost[1][2]),
            show(lost[0][0]),
            show(lost[0][2]),
            show(lost[2][0]),
            show(lost[2][2]),
        );
        std::io::stdout().flush().expect("standard output takes it");
    }
}
