// Package warc writes and reads WARC 1.1 (ISO 28500:2017), compressed record by record: each record is one gzip member
// (RFC 1952) or one zstd frame (RFC 8878), so that it can be read from its offset alone. It also makes CDXJ, the sorted
// index that replay tools look captures up in.
//
// What it writes is what readers agree on: digests are SHA-256 in hexadecimal digits ("sha256:…"), as npm warcio and
// browsertrix write them and Python's warcio verifies them, and the same as in the records of this program; the status line
// of an HTTP/2 answer is written as HTTP/1.1; a body has no transfer coding any more, and neither has its head. No header
// value or URL can end its line.
//
// The Reader trusts nothing: it tells an input that ends too early from one that is damaged, verifies digests where asked,
// and needs memory for one header whatever it is fed.
package warc
