package pgstore

const crashURL = "PGSTORE_CRASH_URL"

func crashChild(string) int { return 0 }
