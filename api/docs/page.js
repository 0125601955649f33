// Renders the contract with Scalar (MIT, see /docs/scalar-license.txt), without
// anything that asks somebody else's server or leads there.
Scalar.createApiReference("#api", {
  url: "openapi.yaml",
  documentDownloadType: "direct", // a link, not one button over another
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: "never",
  hideClientButton: true,
  // No link to its maker, and no frame around what an address leads to.
  customCss: 'a[href^="https://www.scalar.com"] { display: none } section[tabindex="-1"] { outline: none }',
  // A reset destroys data: nobody should send one by looking at its example.
  hideTestRequestButton: true,
  // A browser's own search finds only what is open.
  defaultOpenAllTags: true,
});
