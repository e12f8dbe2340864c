// Package console is the web console: its templates, its styles, its one script,
// and the values that the templates read. It knows no engine and no request: package
// web fills the values in and says who may see them.
//
// Everything that is rendered goes through html/template. What came from an agent or
// an upstream is a Text, whose invisible and misleading characters the engine has
// marked; it is never markup. Nothing here has an inline script, an inline style or an
// address of another origin, so that the strictest Content-Security-Policy holds.
//
// What is in dist is made from src by esbuild, which tools/go.mod pins, and is kept, so
// that a build needs nothing but Go.
package console

//go:generate go run -C ../tools github.com/evanw/esbuild/cmd/esbuild ../console/src/console.ts ../console/src/console.css --bundle --minify --target=es2022,chrome120,safari17,firefox120 --charset=utf8 --legal-comments=none --log-level=warning --outdir=../console/dist
