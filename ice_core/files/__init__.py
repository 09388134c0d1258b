"""Files that others read: safe names, whole files or none, learned tokens as textual inversions."""

from ice_core.files.paths import atomic_write, check_writable, free_folder, free_path, safe_path

__all__ = ["atomic_write", "check_writable", "free_folder", "free_path", "safe_path"]
