package s3store

const crashURL = "S3STORE_CRASH_URL"

func crashChild(url string) int { return 1 }
