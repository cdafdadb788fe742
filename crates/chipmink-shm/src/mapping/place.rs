//! Where mapping is safe.

use std::fs::File;

/// Magic numbers (`statfs(2)`, `linux/magic.h`) of file systems on which a file that was deleted, perhaps by another
/// machine, may be gone although somebody has it mapped.
#[cfg(target_os = "linux")]
const NETWORK: [u32; 20] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB 2
    0x6573_5546, // FUSE: sshfs, gcsfuse, s3fs, virtiofs
    0x0102_1997, // 9P
    0x00C3_6400, // Ceph
    0x5346_414F, // AFS
    0x6B41_4653, // kAFS
    0x7375_7245, // Coda
    0x564C,      // NCP
    0x0BD0_0BD0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x0116_1970, // GFS2
    0x7461_636F, // OCFS2
    0xAAD7_AAEA, // PanFS
    0x786F_4256, // VirtualBox shared folders
    0xBACB_ACBC, // VMware shared folders
    0x7C7C_6673, // Parallels shared folders
];

/// Whether the file's bytes stay as long as it is mapped, also if it is deleted meanwhile. `false` if that is not known.
pub fn keeps_unlinked_files(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::fstatfs(file).is_ok_and(|system| is_local(system.f_type as u32));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

#[cfg(target_os = "linux")]
fn is_local(magic: u32) -> bool {
    !NETWORK.contains(&magic)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_not_trusted() {
        assert!(!is_local(0x6969));
        assert!(!is_local(0xFF53_4D42));
        // ext4, XFS, btrfs, tmpfs, overlay
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630] {
            assert!(is_local(magic));
        }
    }

    #[test]
    fn a_local_file_is_kept() {
        // procfs is no place for packs, but its number is none of a network either: only the listed are refused.
        assert!(keeps_unlinked_files(&File::open("/proc/self/maps").unwrap()));
    }
}
