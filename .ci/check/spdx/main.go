// Command spdx lists the modules that are in a Go binary, as an SPDX 2.3 document. The same binary gives the
// same document: it has the date of SOURCE_DATE_EPOCH, and a name that comes from the binary.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

const unknown = "NOASSERTION"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: spdx VERSION BINARY DOCUMENT")
	}
	if err := list(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatalf("spdx: %v", err)
	}
}

// list writes the document of a binary.
func list(version, binary, path string) error {
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	sum := sha256.Sum256(content)
	hash := hex.EncodeToString(sum[:])
	name := filepath.Base(path)
	document := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: name,
		DocumentNamespace: "https://spdx.org/spdxdocs/batchreset-" + version + "-" + hash,
		CreationInfo: &v2_3.CreationInfo{
			Created:  time.Unix(seconds, 0).UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "batchreset-spdx"}},
		},
	}
	main := packageOf("binary", info.Main.Path, version)
	main.PackageFileName, main.PrimaryPackagePurpose = filepath.Base(binary), "APPLICATION"
	main.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hash}}
	main.PackageLicenseDeclared = "MIT"
	document.Packages = append(document.Packages, main)
	document.Relationships = append(document.Relationships, relation("DOCUMENT", "DESCRIBES", "binary"))
	modules := append([]*debug.Module{{Path: "stdlib", Version: info.GoVersion}}, info.Deps...)
	for _, m := range modules {
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version == "" {
			return errors.New("a module has no version: " + m.Path)
		}
		id := "go-" + notInID.ReplaceAllString(m.Path+"-"+m.Version, "-")
		p := packageOf(id, m.Path, m.Version)
		if m.Sum != "" {
			p.PackageSourceInfo = "go.sum: " + m.Sum
		}
		document.Packages = append(document.Packages, p)
		document.Relationships = append(document.Relationships, relation("binary", "CONTAINS", id))
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(json.Write(document, file, json.Indent("  ")), file.Close())
}

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func packageOf(id, path, version string) *v2_3.Package {
	return &v2_3.Package{
		PackageName: path, PackageSPDXIdentifier: common.ElementID(id), PackageVersion: version,
		PackageDownloadLocation: unknown, PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown,
		PackageExternalReferences: []*v2_3.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: "pkg:golang/" + path + "@" + version,
		}},
	}
}

func relation(from, kind, to string) *v2_3.Relationship {
	return &v2_3.Relationship{
		RefA: common.MakeDocElementID("", from), RefB: common.MakeDocElementID("", to), Relationship: kind,
	}
}
