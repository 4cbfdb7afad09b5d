/** The last call as a curl and as a Python line, to be copied. */

import { button, choiceField, element } from "./dom.js";
import { HOME, hasKey } from "./requests.js";

/** The block below a result. */
export class Code {
  constructor() {
    this.text = element("code");
    this.files = element("p", { class: "files" });
    this.language = choiceField("As code", [["curl", "curl"], ["python", "Python"]], () => this.#write());
    this.copied = element("span", { class: "hint", role: "status" });
    this.root = element("section", { class: "code", hidden: true, "aria-label": "The call as code" },
      element("div", { class: "bar" }, this.language.root, this.copied, button("Copy", () => this.#copy())),
      element("pre", { tabIndex: 0 }, this.text), this.files);
  }

  /** Shows a call; see requests.js. */
  show(call) {
    this.call = call;
    this.root.hidden = false;
    this.#write();
  }

  hide() {
    this.root.hidden = true;
  }

  #write() {
    const made = pictures(this.call).filter(([, picture]) => picture.made);
    const first = made.map(([, { name }]) => `# save ${name} first: the link below\n`);
    this.text.textContent = first.join("") + { curl, python }[this.language.value](this.call);
    this.copied.textContent = "";
    for (const link of this.files.children) URL.revokeObjectURL(link.href);
    this.files.replaceChildren(...made.map(([, { name, url }]) => element("a", { href: url, download: name }, `Save ${name}`)));
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.text.textContent);
    } catch {  // a page that came over plain HTTP from another host has no clipboard
      getSelection().selectAllChildren(this.text);
      document.execCommand("copy");
    }
    this.copied.textContent = "Copied";
  }
}

function pictures(call) {
  return Object.entries(call.form ?? {}).filter(([, value]) => value?.blob);
}

const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);
const address = (path) => new URL(path, HOME).href;
/** A file's name as curl's -F wants it: quoted, where it has a comma or semicolon. */
const attached = (name) => `@${/[,;"\\]/.test(name) ? `"${name.replace(/["\\]/g, "\\$&")}"` : name}`;

/** The example pictures are fetched from this server first. */
function curl(call) {
  const lines = [`curl -sS --fail-with-body ${shell(address(call.path))}`];
  if (hasKey()) lines.push('-H "Authorization: Bearer $KEY"');
  if (call.accept) lines.push(`-H ${shell(`Accept: ${call.accept}`)}`);
  if (call.json) lines.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(call.json))}`);
  for (const [name, value] of Object.entries(call.form ?? {})) {
    lines.push(`-F ${shell(`${name}=${value?.blob ? attached(value.name) : value}`)}`);
  }
  lines.push(`-o ${shell(call.saves ?? "answer.json")}`);
  const examples = pictures(call).filter(([, picture]) => picture.from).map(([, picture]) => `curl -sSfO ${shell(picture.from)}\n`);
  return examples.join("") + lines.join(" \\\n  ");
}

function python(call) {
  const lines = [`    ${literal(address(call.path))},`];
  const headers = { ...(call.accept && { Accept: literal(call.accept) }), ...(hasKey() && { Authorization: 'f"Bearer {KEY}"' }) };
  if (call.json) lines.push(`    json=${literal(call.json)},`);
  if (call.form) {
    const fields = Object.entries(call.form);
    const files = pictures(call).map(([name, picture]) => `${literal(name)}: ${content(picture)}`);
    const others = Object.fromEntries(fields.filter(([, value]) => !value?.blob));
    lines.push(`    files={${files.join(", ")}},`);
    if (Object.keys(others).length) lines.push(`    data=${literal(others)},`);
  }
  if (Object.keys(headers).length) {
    lines.push(`    headers={${Object.entries(headers).map(([name, value]) => `${literal(name)}: ${value}`).join(", ")}},`);
  }
  const picture = call.saves?.match(/\.(png|jpg|webp)$/);
  const last = picture ? `open(${literal(call.saves)}, "wb").write(answer.content)` : "print(answer.json())";
  return ["import httpx", "", "answer = httpx.post(", ...lines, "    timeout=60,", ").raise_for_status()", last].join("\n");
}

/** A picture as httpx takes it. */
function content({ name, from }) {
  return from ? `(${literal(name)}, httpx.get(${literal(from)}).content)` : `open(${literal(name)}, "rb")`;
}

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null || value === undefined) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `${literal(name)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}
