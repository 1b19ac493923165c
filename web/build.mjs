// node build.mjs [FILE]: builds the graph page into one file, the same bytes at every run.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] ?? join(here, "../graphprog/ir/drawing/page.html");

async function bundled(entry, options) {
  const { outputFiles } = await build({
    entryPoints: [join(here, "graph_page", entry)],
    absWorkingDir: here,
    bundle: true,
    minify: true,
    write: false,
    charset: "ascii",
    legalComments: "none",
    target: "es2021",
    ...options,
  });
  return outputFiles[0].text.trim();
}

const script = await bundled("main.jsx", { format: "iife", jsx: "automatic", jsxImportSource: "preact" });
const style = await bundled("style.css", {});
if (/<\/(script|style)/i.test(script + style)) throw new Error("the bundle would end its own element");
const hash = createHash("sha256").update(script).digest("base64");
const parts = { "@script@": script, "@style@": style, "@hash@": hash };
const template = readFileSync(join(here, "graph_page", "template.html"), "utf8");
const page = template.replace(/@(script|style|hash)@/g, (name) => parts[name]);
writeFileSync(target, page);
