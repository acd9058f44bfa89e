//! The tensor types chosen for a size budget, as text and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use ggufkit::allocate::{Allocation, Goal};
use ggufkit::memory;
use ggufkit::text::{self, visible};

/// The choice as JSON.
pub fn allocation_json(allocation: &Allocation) -> serde_json::Value {
    let memory = allocation.memory.as_ref().map(|(run, m)| {
        serde_json::json!({
            "runtime": run.runtime.name(), "context": run.context, "kv": run.kv.name(), "resident": m.resident(),
            "needed": m.needed(), "total": m.total(), "weights": m.weights, "cache": m.kv_cache,
        })
    });
    serde_json::json!({
        "predicted_kld": allocation.kld, "cache_kld": allocation.cache_kld, "bound": allocation.bound, "bytes": allocation.bytes,
        "most_bytes": allocation.limit, "memory": memory,
        "next_larger": allocation.next[0], "next_smaller": allocation.next[1],
    })
}

/// The budget and what was chosen, as text. `recipe` is the file that the choice is written to.
pub fn allocation_text(allocation: &Allocation, recipe: Option<&Path>) -> String {
    let bytes = text::bytes;
    let mut text = String::new();
    if let (Goal::Ram { ram, reserve, .. }, Some((run, memory))) = (&allocation.goal, &allocation.memory) {
        let reserve = reserve.unwrap_or_else(|| memory::reserve(*ram));
        let room = ram.saturating_sub(reserve);
        let _ = writeln!(
            text,
            "fit: {} of RAM, {} of it reserved for the system; {} with a context of {} tokens, KV cache {}",
            bytes(*ram),
            bytes(reserve),
            run.runtime.name(),
            run.context,
            run.kv.name()
        );
        let _ = writeln!(
            text,
            "  weights {}, KV cache {}, batch buffers {}, vocabulary and program {}: {} resident, {} \
             with room for what allocators keep; {} available, {} left",
            bytes(memory.weights),
            bytes(memory.kv_cache),
            bytes(memory.compute),
            bytes(memory.vocabulary + memory.process),
            bytes(memory.resident()),
            bytes(memory.needed()),
            bytes(room),
            bytes(room.saturating_sub(memory.needed())),
        );
    } else {
        let left = allocation.limit.saturating_sub(allocation.bytes);
        let _ = writeln!(
            text,
            "fit: {} of {}, {} left",
            bytes(allocation.bytes),
            bytes(allocation.limit),
            bytes(left)
        );
    }
    let cache = match allocation.cache_kld {
        x if x > 0.0 => format!(", {x:.6} of it from the KV cache"),
        _ => String::new(),
    };
    let bound = allocation.bound.unwrap_or(allocation.kld);
    let gap = match allocation.kld / bound.max(f64::MIN_POSITIVE) - 1.0 {
        gap if gap > 1e-6 => format!("; no other choice is more than {:.3} % better", 100.0 * gap),
        _ => String::new(),
    };
    let _ = writeln!(
        text,
        "  predicted KL divergence {:.6}{cache}{gap} ({})",
        allocation.kld, allocation.cost_origin
    );
    for (name, next) in ["next larger", "next smaller"].iter().zip(&allocation.next) {
        if let Some(next) = next {
            let _ = writeln!(text, "  {name}: {next}");
        }
    }
    if let Some(path) = recipe {
        let _ = writeln!(text, "  recipe: {}", path.display());
    }
    text.lines().map(|line| visible(line).to_string() + "\n").collect()
}
