//! Sensitivities as a text table.

use crate::scheme::{Role, role};
use crate::sensitivity::Sensitivity;
use crate::text::Table;

/// A row for each role and probe, all layers together: the mean relative output error, the sum of the KL divergences, and the
/// matrix with the largest one.
pub fn table(s: &Sensitivity) -> String {
    let mut roles: Vec<Role> = Vec::new();
    for m in &s.matrices {
        if !roles.contains(&role(&m.name)) {
            roles.push(role(&m.name));
        }
    }
    let mut table =
        Table::new(&["matrices", "number", "weights", "probe", "error", "KL divergence", "largest"]);
    for this in roles {
        let of: Vec<_> = s.matrices.iter().filter(|m| role(&m.name) == this).collect();
        let weights: u64 = of.iter().map(|m| m.shape.iter().product::<u64>()).sum();
        for probe in 0..of.iter().map(|m| m.probes.len()).max().unwrap_or(0) {
            let probes: Vec<_> = of.iter().filter_map(|m| Some((*m, m.probes.get(probe)?))).collect();
            let mut types: Vec<&str> = probes.iter().map(|p| p.1.dtype.name()).collect();
            types.dedup();
            let error = probes.iter().map(|p| p.1.error).sum::<f64>() / probes.len().max(1) as f64;
            let kld: f64 = probes.iter().map(|p| p.1.kld).sum();
            let largest = probes.iter().max_by(|a, b| a.1.kld.total_cmp(&b.1.kld)).map_or("", |p| &p.0.name);
            table.row([
                this.name().to_string(),
                probes.len().to_string(),
                crate::text::count(weights),
                types.join(", "),
                format!("{:.4} %", 100.0 * error),
                format!("{kld:.6}"),
                largest.to_string(),
            ]);
        }
    }
    let mut text = table.to_string();
    for (kv, kld) in &s.cache {
        text += &format!("KV cache as {}: {kld:.6}\n", kv.name());
    }
    text
}
