package enginetest

import (
	"archive/tar"
	"bytes"
	"path/filepath"

	"batchreset/cmd/harness/certs"
)

// Root is the archive of an image's files, with one program under several names.
func Root(program []byte) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	entries := []*tar.Header{
		{Name: "init", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(program))},
		{Name: "data/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "system/bin/", Mode: 0o755, Typeflag: tar.TypeDir},
	}
	for _, name := range []string{"getprop", "find", "healthy", "boot"} {
		entries = append(entries, &tar.Header{Name: "system/bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "/init"})
	}
	for _, entry := range entries {
		if err := w.WriteHeader(entry); err != nil {
			return nil, err
		}
		if entry.Size > 0 {
			if _, err := w.Write(program); err != nil {
				return nil, err
			}
		}
	}
	return archive.Bytes(), w.Close()
}

// WriteCertificates writes those of an authority, a server and a client, and of a stranger that
// nobody vouches for.
func WriteCertificates(dir string) error {
	authority, err := certs.NewAuthority(certs.Subject{CommonName: "ca"})
	if err != nil {
		return err
	}
	pairs := map[string]*certs.Pair{"ca": authority}
	for _, name := range []string{"server", "client"} {
		if pairs[name], err = authority.Issue(certs.Subject{CommonName: name}); err != nil {
			return err
		}
	}
	if pairs["stranger"], err = certs.NewAuthority(certs.Subject{CommonName: "stranger"}); err != nil {
		return err
	}
	for name, pair := range pairs {
		if err := pair.Write(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")); err != nil {
			return err
		}
	}
	return nil
}
