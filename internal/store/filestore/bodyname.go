package filestore

import "github.com/fetchfleet/fetchfleet/internal/store"

// BodyName returns the Body field of a record whose body has this digest (lower-case hex) and description:
// "bodies/ab/SHA256.EXT". Other drivers that keep this package's layout name bodies by it.
func BodyName(sha256 string, meta store.BodyMeta) string { return bodyName(sha256, extension(meta)) }
