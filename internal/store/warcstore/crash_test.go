package warcstore

const crashDir = "WARCSTORE_CRASH_DIR"

func crashChild(dir string) int { return 1 }
