//! Names of registers and special registers.

use std::collections::HashMap;

use crate::program::{LaneMask, Reg, Special};

/// Registers of one declaration: `%r<10>` has a count, `%tmp` has none.
pub(crate) struct RegisterGroup {
    pub first: Reg,
    pub count: Option<u32>,
}

impl RegisterGroup {
    pub fn find(groups: &HashMap<&str, Self>, name: &str) -> Option<Reg> {
        if let Some(group) = groups.get(name).filter(|g| g.count.is_none()) {
            return Some(group.first);
        }
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let index: u32 = name[prefix.len()..].parse().ok()?;
        let group = groups.get(prefix)?;
        (index < group.count?).then(|| group.first + index)
    }
}

/// A special register of one dimension.
type Make = fn(usize) -> Special;

/// The special register of this name, if its value never changes within a warp.
pub(crate) fn special(name: &str) -> Option<Special> {
    let dimension = |prefix: &str| match name.strip_prefix(prefix)? {
        ".x" => Some(0),
        ".y" => Some(1),
        ".z" => Some(2),
        _ => None,
    };
    let families: [(&str, Make); 8] = [
        ("%tid", Special::Tid),
        ("%ntid", Special::Ntid),
        ("%ctaid", Special::Ctaid),
        ("%nctaid", Special::Nctaid),
        ("%clusterid", Special::ClusterId),
        ("%nclusterid", Special::ClusterCount),
        ("%cluster_ctaid", Special::ClusterCtaid),
        ("%cluster_nctaid", Special::ClusterNctaid),
    ];
    if let Some(found) = families.iter().find_map(|(prefix, make)| dimension(prefix).map(make)) {
        return Some(found);
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::WarpCount,
        "%cluster_ctarank" => Special::ClusterRank,
        "%cluster_nctarank" => Special::ClusterSize,
        "%lanemask_eq" => Special::LaneMask(LaneMask::Equal),
        "%lanemask_lt" => Special::LaneMask(LaneMask::Less),
        "%lanemask_le" => Special::LaneMask(LaneMask::LessEqual),
        "%lanemask_gt" => Special::LaneMask(LaneMask::Greater),
        "%lanemask_ge" => Special::LaneMask(LaneMask::GreaterEqual),
        "%dynamic_smem_size" => Special::DynamicSharedBytes,
        "%total_smem_size" => Special::TotalSharedBytes,
        "%smid" => Special::SmId,
        "%gridid" => Special::Zero,
        _ => return None,
    })
}
