package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"path"
	"strings"
)

//go:embed templates/*.html
var templates embed.FS

//go:embed dist/console.css dist/console.js dist/icon.svg
var dist embed.FS

// AssetPath is the path below which assets are.
const AssetPath = "/assets/"

// An Asset is a file that a page needs. Its name holds a digest of its bytes, so that
// it may be kept for ever.
type Asset struct {
	Name  string // such as console.0f1e2d3c4b5a.css
	Media string
	Bytes []byte
}

// assets are by their names in dist.
var assets = loadAssets()

func loadAssets() map[string]Asset {
	out := map[string]Asset{}
	for name, media := range map[string]string{
		"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		b, err := dist.ReadFile("dist/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		sum := sha256.Sum256(b)
		ext := path.Ext(name)
		out[name] = Asset{strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext, media, b}
	}
	return out
}

// FindAsset returns the asset of that name, with its digest.
func FindAsset(name string) (Asset, bool) {
	for _, a := range assets {
		if a.Name == name {
			return a, true
		}
	}
	return Asset{}, false
}

// pages are the parsed pages, each with the frame around it.
var pages = parsePages()

// PageNames are the pages that Render knows, and what their Body is: inbox (Inbox),
// approval (Approval), decided (Decided), agents (Agents), agent (Agent), void (Void),
// revocations (Revocations), revocation (Revocation), resources (Resources), people
// (People), ledger (Ledger), entry (Chain), health (Health), login (Login), enrol
// (Enrol), failure (Failure).
var PageNames = []string{
	"inbox", "approval", "decided", "agents", "agent", "void", "revocations", "revocation", "resources", "people", "ledger", "entry", "health",
	"login", "enrol", "failure",
}

func parsePages() map[string]*template.Template {
	base := template.Must(template.New("frame.html").Funcs(funcs).ParseFS(templates, "templates/frame.html", "templates/parts.html"))
	out := map[string]*template.Template{}
	for _, name := range PageNames {
		t := template.Must(base.Clone())
		out[name] = template.Must(t.ParseFS(templates, "templates/"+name+".html"))
	}
	return out
}

// Render returns the whole page, or an error and nothing of it.
func Render(name string, p Page) ([]byte, error) {
	t, ok := pages[name]
	if !ok {
		return nil, fmt.Errorf("there is no page %q", name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "frame.html", p); err != nil {
		return nil, fmt.Errorf("rendering the page %s: %w", name, err)
	}
	return b.Bytes(), nil
}
