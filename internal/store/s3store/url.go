package s3store

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// The values of Options.Format.
const (
	FormatFile = "file" // a body an object, in filestore's layout; the default
	FormatWARC = "warc" // whole units as WARC files
)

// Options say where a store is and how it is used. Parse makes them from a URL.
type Options struct {
	Bucket string
	Prefix string // of every key, without slashes at its ends; "" for the whole bucket
	// Endpoint is the HOST or HOST:PORT of the server; "" means AWS, by region.
	Endpoint string
	Insecure bool   // plain HTTP instead of HTTPS
	Region   string // "" means AWS_REGION, AWS_DEFAULT_REGION, or what the server says
	Format   string // FormatFile or FormatWARC; "" means FormatFile
	// Compress is "gzip" or "zstd", with FormatWARC. A store keeps what it was made with, and refuses the other; "" takes what
	// it has, and gzip for a new one.
	Compress string
	Decoded  bool // keep a decoded copy of each coded body as well, with FormatWARC
	// PathStyle says whether the bucket stands in the path of a URL ("true") or in front of the host ("false").
	// "" means in the path, except at AWS.
	PathStyle string

	Worker    string // names this worker in temporary names; "" means "worker"
	MustExist bool   // refuse a store that is not there yet
	// SpoolDir is the folder for what is not yet uploaded, at most 8 MiB for each body under way (64 MiB for each beyond
	// 32 GiB); with FormatWARC it is all of a large unit, and of its bodies under way. The files have no names. "" means the
	// system's folder for temporary files.
	SpoolDir string
}

// form is what an error says a URL looks like.
const form = "s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=REGION"

// Parse reads a URL of the form
//
//	s3://BUCKET/PREFIX?endpoint=http://127.0.0.1:9000&region=us-east-1&format=file&path-style=true&insecure=true
//
// and, with format=warc, &compress=zstd&decoded=true.
// All parameters are optional. An endpoint without scheme is spoken to over HTTPS unless insecure is true. Credentials
// in the URL are refused: it is stored, logged and seen in process lists.
func Parse(rawURL string) (Options, error) {
	u, err := url.Parse(rawURL)
	if err != nil { // its text would repeat the URL, with a password that may be in it
		return Options{}, fmt.Errorf("open store: this is no URL: write %s", form)
	}
	if !strings.EqualFold(u.Scheme, "s3") {
		return Options{}, fmt.Errorf("open store %s: not an s3 URL: write %s", u.Redacted(), form)
	}
	if u.User != nil {
		return Options{}, fmt.Errorf("open store s3://%s%s: the URL holds credentials, and URLs end up in logs: "+
			"give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials", u.Host, u.Path)
	}
	o := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Format: FormatFile}
	query, err := url.ParseQuery(u.RawQuery)
	if err == nil {
		err = o.takeAll(query)
	}
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return Options{}, fmt.Errorf("open store s3://%s%s: %w", u.Host, u.Path, err)
	}
	return o, nil
}

func (o *Options) takeAll(query url.Values) error {
	insecure := ""
	var err error
	for name, values := range query {
		if len(values) > 1 {
			return fmt.Errorf("parameter %q is given twice", name)
		}
		switch v := values[0]; name {
		case "endpoint":
			o.Endpoint = v
		case "region":
			o.Region = v
		case "format":
			o.Format = v
		case "compress":
			o.Compress = v
		case "decoded":
			if o.Decoded, err = strconv.ParseBool(v); err != nil {
				return fmt.Errorf("decoded=%.20q: write true or false", v)
			}
		case "path-style":
			o.PathStyle = v
		case "insecure":
			insecure = v
		case "access_key", "access-key", "access_key_id", "secret", "secret_key", "secret-key", "secret_access_key", "session_token", "token":
			return fmt.Errorf("parameter %q would put credentials into the URL, and URLs end up in logs: "+
				"give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws/credentials", name)
		default:
			return fmt.Errorf("unknown parameter %q: known are endpoint, region, format, compress, decoded, path-style and insecure", name)
		}
	}
	if insecure != "" {
		if o.Insecure, err = strconv.ParseBool(insecure); err != nil {
			return fmt.Errorf("insecure=%q: write true or false", insecure)
		}
	}
	return o.takeEndpoint(insecure == "")
}

// takeEndpoint reads the endpoint's scheme, which decides unless the parameter insecure already did.
func (o *Options) takeEndpoint(open bool) error {
	scheme, rest, found := strings.Cut(o.Endpoint, "://")
	if !found {
		return nil
	}
	plain := strings.EqualFold(scheme, "http")
	if !plain && !strings.EqualFold(scheme, "https") {
		return fmt.Errorf("endpoint begins with %.20q: write http://HOST:PORT or https://HOST:PORT", scheme+"://")
	}
	if !open && plain != o.Insecure {
		return fmt.Errorf("insecure=%v contradicts an endpoint that begins with %s://: leave it out", o.Insecure, scheme)
	}
	o.Endpoint, o.Insecure = strings.TrimSuffix(rest, "/"), plain
	return nil
}

// check refuses what could not work, whoever made the options.
func (o *Options) check() error {
	switch {
	case o.Bucket == "":
		return fmt.Errorf("no bucket given: write %s", form)
	case !isBucket(o.Bucket):
		return fmt.Errorf("%.80q cannot be the name of a bucket, which has 3 to 63 lower-case letters, digits, dots and hyphens", o.Bucket)
	case o.Format != "" && o.Format != FormatFile && o.Format != FormatWARC:
		return fmt.Errorf("unknown format %.20q: write %s or %s", o.Format, FormatFile, FormatWARC)
	case o.Format != FormatWARC && (o.Compress != "" || o.Decoded):
		return fmt.Errorf("compress and decoded are for stores of WARC files: write format=%s as well, or leave them out", FormatWARC)
	case o.Compress != "" && !slices.Contains(warc.Compressions, warc.Compression(o.Compress)):
		return fmt.Errorf("unknown compress %.20q: write %s or %s", o.Compress, warc.Gzip, warc.Zstd)
	case strings.ContainsAny(o.Endpoint, "@"):
		return fmt.Errorf("the endpoint holds credentials: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case strings.ContainsAny(o.Endpoint, "/?#"):
		return fmt.Errorf("endpoint %.80q has a path: write HOST:PORT alone, and the bucket before the parameters", o.Endpoint)
	case o.Prefix != "" && path.Clean("/"+o.Prefix) != "/"+o.Prefix:
		return fmt.Errorf("prefix %.80q has empty parts or dots", o.Prefix)
	case len(o.Prefix) > maxPrefix:
		return fmt.Errorf("the prefix has %d bytes, more than %d", len(o.Prefix), maxPrefix)
	case o.Endpoint == "" && o.Insecure:
		return fmt.Errorf("plain HTTP to AWS is not supported: leave insecure out")
	}
	if _, err := strconv.ParseBool(o.PathStyle); o.PathStyle != "" && err != nil {
		return fmt.Errorf("path-style=%.20q: write true or false", o.PathStyle)
	}
	return nil
}

// maxPrefix leaves room for the longest key of ours in the 1,024 bytes that S3 allows.
const maxPrefix = 512

func isBucket(name string) bool {
	for i := range len(name) {
		c := name[i]
		inner := i > 0 && i < len(name)-1
		if ('a' > c || c > 'z') && ('0' > c || c > '9') && (!inner || c != '.' && c != '-') {
			return false
		}
	}
	return len(name) >= 3 && len(name) <= 63
}

// String returns the URL that means these options. It holds no secret.
func (o Options) String() string {
	query := url.Values{}
	if o.Endpoint != "" {
		scheme := "https"
		if o.Insecure {
			scheme = "http"
		}
		query.Set("endpoint", scheme+"://"+o.Endpoint)
	}
	set := func(name, value, usual string) {
		if value != "" && value != usual {
			query.Set(name, value)
		}
	}
	set("region", o.Region, "")
	set("format", o.Format, FormatFile)
	set("compress", o.Compress, "")
	if o.Decoded {
		query.Set("decoded", "true")
	}
	set("path-style", o.PathStyle, "")
	// An endpoint stays readable: a query may hold colons and slashes (RFC 3986, section 3.4).
	readable := strings.NewReplacer("%3A", ":", "%2F", "/").Replace(query.Encode())
	u := url.URL{Scheme: "s3", Host: o.Bucket, RawQuery: readable}
	if o.Prefix != "" {
		u.Path = "/" + o.Prefix
	}
	return u.String()
}
