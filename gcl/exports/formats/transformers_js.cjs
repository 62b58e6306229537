// Serves an exported folder to a Python process through transformers.js: a line of JSON in, a line of JSON out.
// node transformers_js.cjs <folder of the package> <settings as JSON>
const { createInterface } = require("readline");

const [, , library, settings] = process.argv;
const { folder, dtype, classes, outputs, session_options } = JSON.parse(settings);
const js = require(library);

js.env.allowRemoteModels = false;
js.env.localModelPath = ""; // the folder is given whole: a part of its path may be no name of the Hub, as .one is none

const open = (Class) => {
  let opened;
  return () => (opened ??= Class.from_pretrained(folder, { dtype, device: "cpu", session_options }));
};
const tokenizer = open(js.AutoTokenizer);
const processor = open(js.AutoImageProcessor);
const text = open(js[classes.text]);
const image = open(js[classes.image]);

const tokens = async (texts, padding) => (await tokenizer())(texts, { padding, truncation: true });

const vectors = async (model, inputs, name) => {
  const output = (await model(inputs))[name];
  return { shape: output.dims, float32: Buffer.from(Float32Array.from(output.data).buffer).toString("base64") };
};

const answers = {
  ids: async ({ texts }) => ({ ids: (await tokens(texts, "max_length")).input_ids.tolist().map((row) => row.map(Number)) }),
  texts: async ({ texts }) => vectors(await text(), await tokens(texts, true), outputs.text),
  images: async ({ images }) => {
    const raw = images.map(({ rgb, width, height }) => new js.RawImage(Buffer.from(rgb, "base64"), width, height, 3));
    return vectors(await image(), await (await processor())(raw), outputs.image);
  },
};

(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const answer = await answers[order.do](order).catch((error) => ({ error: String(error?.message ?? error) }));
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
})();
