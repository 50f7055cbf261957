//! The QEMU provider: capture by dirty bitmaps and the copy-before-write filter, and recovered VMs.
