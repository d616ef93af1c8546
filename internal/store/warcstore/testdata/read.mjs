// Reads WARC files with npm warcio and prints one JSON object for each record: what it is, and what its bytes are by
// warcio's own account. Usage: node read.mjs FOLDER_WITH_node_modules FILE...
import { createReadStream } from "node:fs";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { basename } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const require = createRequire(pathToFileURL(folder + "/x.js"));
const { WARCParser } = await import(pathToFileURL(require.resolve("warcio")));
const sha = (parts) => parts.reduce((h, p) => h.update(p), createHash("sha256")).digest("hex");

for (const file of files) {
  const parser = new WARCParser(createReadStream(file), { keepHeadersCase: true });
  for await (const record of parser) {
    const head = record.httpHeaders ? record.httpHeaders.toString() + "\r\n" : "";
    const type = record.warcType;
    const payload = await record.readFully(false);
    const out = {
      file: basename(file), offset: parser.offset, length: parser.recordLength, type, url: record.warcTargetURI ?? "",
      id: record.warcHeader("WARC-Record-ID"), status: record.httpHeaders?.statusCode || 0,
      size: record.warcContentLength, got: Buffer.byteLength(head) + payload.length,
      blockOK: record.warcBlockDigest === "sha256:" + sha([head, payload]),
      payloadOK: !record.warcPayloadDigest || type === "revisit" || record.warcPayloadDigest === "sha256:" + sha([payload]),
      refersTo: record.warcHeader("WARC-Refers-To") ?? "", concurrentTo: record.warcConcurrentTo?.[0] ?? "",
      truncated: record.warcHeader("WARC-Truncated") ?? "", profile: record.warcHeader("WARC-Profile") ?? "",
    };
    if (type === "response") out.decoded = sha([await record.readFully(true)]);
    console.log(JSON.stringify(out));
  }
}
