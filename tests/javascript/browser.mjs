// A headless Chromium, and a file server for it.

import { createServer } from "node:http";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
const CANNOT_START = 77;

/** Serve folders: {"/prefix/": folder}, the longest prefix first. */
export async function serve(folders) {
  const missing = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const prefix = Object.keys(folders).find((start) => path.startsWith(start));
    const file = prefix && join(folders[prefix], normalize(path.slice(prefix.length) || "index.html"));
    if (!file || !existsSync(file) || !statSync(file).isFile()) {
      missing.push(path);
      response.writeHead(404).end();
      return;
    }
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type }).end(readFileSync(file));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const address = `http://127.0.0.1:${server.address().port}`;
  return { address, missing, close: () => server.close() };
}

/** Find the fonts of the package where they are unpacked: without any, form fields end the browser. */
function useItsFonts(folder) {
  process.env.FONTCONFIG_PATH = join(folder, "fontconfig");
  mkdirSync(process.env.FONTCONFIG_PATH, { recursive: true });
  const places = [`<dir>${folder}/fonts</dir>`, `<cachedir>${folder}/fonts-cache</cachedir>`];
  const text = `<?xml version="1.0"?>\n<fontconfig>${places.join("")}</fontconfig>\n`;
  writeFileSync(join(process.env.FONTCONFIG_PATH, "fonts.conf"), text);
}

/** Start the browser; where it does not start, end with a status that says so. */
export async function launch() {
  // The package brings the libraries that Chromium links to, but for those of C, and unpacks them
  // where it believes to be in Amazon's cloud; a folder of our own holds no other version's.
  process.env.AWS_LAMBDA_JS_RUNTIME = "nodejs22.x";
  process.env.TMPDIR = join(dirname(fileURLToPath(import.meta.url)), "node_modules", ".browser");
  mkdirSync(process.env.TMPDIR, { recursive: true });
  useItsFonts(process.env.TMPDIR);
  const { default: chromium } = await import("@sparticuz/chromium");
  const { default: puppeteer } = await import("puppeteer-core");
  try {
    const executablePath = await chromium.executablePath();
    return await puppeteer.launch({ executablePath, args: chromium.args, headless: "shell" });
  } catch (error) {
    console.error(`Chromium does not start here: ${error.message}`);
    process.exit(CANNOT_START);
  }
}
