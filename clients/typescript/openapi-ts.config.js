import { fileURLToPath } from "node:url";

const build = fileURLToPath(new URL("../../build/", import.meta.url));

/** One class with a method an operation. Imports name files with their endings, as Node.js wants them. */
export default {
  input: `${build}openapi.json`,
  output: { path: `${build}sdk/typescript/src`, module: { extension: ".js" } },
  plugins: [
    "@hey-api/client-fetch",
    "@hey-api/typescript",
    { name: "@hey-api/sdk", operations: { strategy: "single", containerName: "Atelier" } },
  ],
};
