package s3store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
)

// codeOf returns the S3 error code of an error, "" if it did not come from a server.
func codeOf(err error) string {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}

func statusOf(err error) int {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	return 0
}

// isMissing reports whether an error says that there is no such object.
func isMissing(err error) bool { return err != nil && codeOf(err) == minio.NoSuchKey }

// isRefused reports whether an error says that the condition of a PUT did not hold.
func isRefused(err error) bool {
	return err != nil && (codeOf(err) == minio.PreconditionFailed || statusOf(err) == 412)
}

// mayPass reports whether the same call may succeed a little later.
func mayPass(err error) bool {
	if status := statusOf(err); status != 0 {
		switch codeOf(err) {
		case "ConditionalRequestConflict", "OperationAborted": // another's PUT of the same key is under way
			return true
		case "ExpiredToken", "ExpiredTokenException":
			return false
		}
		return status >= 500 && status != 501 && status != 507 || status == 408 || status == 425 || status == 429
	}
	var (
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, errTaken), errors.Is(err, errTooLarge), errors.Is(err, errMoved), errors.Is(err, errNoCredentials), errors.Is(err, errDamaged),
		errors.Is(err, os.ErrClosed):
		return false
	case errors.As(err, &dns):
		return dns.IsTemporary || dns.IsTimeout
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &record):
		return false
	}
	return !isPlainAnswer(err)
}

// isPlainAnswer reports whether HTTPS was spoken to a server of plain HTTP.
func isPlainAnswer(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// trouble wraps an error with what was done, to what, and what a person can do about it.
func (c *client) trouble(verb, key string, err error) error {
	if errors.Is(err, errTaken) || errors.Is(err, errMoved) {
		return err
	}
	var whole *url.Error
	if errors.As(err, &whole) { // it repeats a long URL
		err = whole.Err
	}
	if advice := c.advice(err); advice != "" {
		return fmt.Errorf("%s %s: %s: %w", verb, key, advice, err)
	}
	return fmt.Errorf("%s %s: %w", verb, key, err)
}

// server is how messages call the other end.
func (c *client) server() string {
	if c.o.Endpoint == "" {
		return "AWS"
	}
	return c.o.Endpoint
}

func (c *client) advice(err error) string {
	if statusOf(err) != 0 || codeOf(err) != "" {
		return c.adviceOnAnswer(err)
	}
	var (
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		netErr  net.Error
	)
	switch {
	case isPlainAnswer(err):
		return fmt.Sprintf("%s speaks plain HTTP: write endpoint=http://%s", c.server(), c.server())
	case errors.As(err, &unknown), errors.As(err, &name):
		return fmt.Sprintf("the certificate of %s is not trusted: name its authority's file in SSL_CERT_FILE, or correct the endpoint", c.server())
	case errors.As(err, &dns):
		return fmt.Sprintf("there is no host of the name %s: correct the endpoint", dns.Name)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Sprintf("%s does not answer: see whether it runs and can be reached from here", c.server())
	case isCut(err) && c.o.Insecure:
		return fmt.Sprintf("%s closes the connection: see whether it runs and is an S3 server, and whether it wants endpoint=https://%s", c.server(), c.server())
	case isCut(err):
		return fmt.Sprintf("%s closes the connection: see whether it runs and is an S3 server", c.server())
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Sprintf("%s cannot be reached: see whether it runs and whether the endpoint is right", c.server())
	}
	return ""
}

// isCut reports whether the other end closed the connection, which the library says in words of its own.
func isCut(err error) bool {
	return strings.HasSuffix(err.Error(), "EOF") || strings.Contains(err.Error(), "Connection closed by foreign host")
}

// needed are the rights without which a store does not work.
const needed = "s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket, s3:AbortMultipartUpload, " +
	"s3:ListMultipartUploadParts and s3:ListBucketMultipartUploads"

// adviceOnAnswer explains what a server answered, by code (Amazon S3 API reference, "Error responses") and status.
func (c *client) adviceOnAnswer(err error) string {
	var answer minio.ErrorResponse
	errors.As(err, &answer)
	switch answer.Code {
	case minio.NoSuchBucket:
		return fmt.Sprintf("there is no bucket %s at %s: create it, or correct the URL", c.o.Bucket, c.server())
	case "InvalidAccessKeyId", "XAdminUserNotFound":
		return fmt.Sprintf("%s does not know the access key: correct AWS_ACCESS_KEY_ID (or the profile)", c.server())
	case "SignatureDoesNotMatch":
		return "the secret key does not fit the access key: correct AWS_SECRET_ACCESS_KEY (or the profile)"
	case "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired":
		return "the session token has expired or is not valid: renew it, and AWS_SESSION_TOKEN"
	case "RequestTimeTooSkewed", "RequestExpired":
		return "the clock of this machine differs too much from the server's: set it"
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "Redirect", "TemporaryRedirect", minio.InvalidRegion, "IllegalLocationConstraintException":
		if answer.Region != "" {
			return fmt.Sprintf("bucket %s is in another region: write region=%s in the URL", c.o.Bucket, answer.Region)
		}
		return fmt.Sprintf("bucket %s is in another region: name it with region= in the URL", c.o.Bucket)
	case "InsufficientStorage", "XMinioStorageFull", "QuotaExceeded":
		return "no space left at " + c.server() + ": free some; a running worker then goes on by itself"
	case "ObjectParentIsFile", "ExistingObjectIsDirectory":
		return "an object of that name, or of the folder's name, is in the way: remove it or choose another prefix"
	}
	switch {
	case answer.StatusCode == 400 && strings.Contains(strings.ToLower(answer.Message), "https"):
		return fmt.Sprintf("%s speaks HTTPS: write endpoint=https://%s", c.server(), c.server())
	case answer.StatusCode == 301 || answer.StatusCode == 307:
		return fmt.Sprintf("bucket %s is in another region: name it with region= in the URL", c.o.Bucket)
	case answer.StatusCode == 401 || answer.StatusCode == 403:
		return fmt.Sprintf("access denied: this key needs %s on bucket %s and on what is in it", needed, c.o.Bucket)
	case answer.StatusCode == 501:
		return c.server() + " does not support this call, which stores rely on: use another server or a newer version"
	case answer.StatusCode >= 500 || answer.StatusCode == 429:
		return fmt.Sprintf("%s has trouble (status %d): a running worker goes on by itself when that is over", c.server(), answer.StatusCode)
	}
	return ""
}

// headerValue makes a content type fit to be sent: it came from a server that may send anything.
func headerValue(v string) string {
	v = strings.TrimSpace(v)
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return ""
		}
	}
	if len(v) > 256 {
		return ""
	}
	return v
}
