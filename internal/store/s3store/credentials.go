package s3store

import (
	"context"
	"errors"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// findCredentials looks where programs for S3 look: the environment (AWS_…, then MINIO_…), the shared credentials file
// (AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE), and at last the cloud: a web identity (AWS_WEB_IDENTITY_TOKEN_FILE), a
// container's role, an instance's role. They are looked up again before they expire.
func findCredentials(ctx context.Context) (*credentials.Credentials, error) {
	found := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.EnvMinio{},
		&credentials.FileAWSCredentials{},
		&credentials.IAM{Client: metadataClient()},
	})
	ctx, cancel := context.WithTimeout(ctx, 2*metadataLimit) // the cloud is asked in several calls
	defer cancel()
	value, err := found.GetWithContext(&credentials.CredContext{Client: metadataClient(), Context: ctx})
	if err != nil {
		return nil, err
	}
	if value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return nil, errNoCredentials
	}
	return found, nil
}

var errNoCredentials = errors.New("no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"or AWS_PROFILE for a profile in ~/.aws/credentials, or run where the cloud gives a role")
