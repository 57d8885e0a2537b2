// Something to look at for whoever has no collection yet.

export const QUESTION = "Which planet is called the red one?";

export const TEXTS = [
  "Mars looks reddish because iron oxide covers its surface.",
  "The red giant phase comes late in the life of a star.",
  "Jupiter is the largest planet, and its Great Red Spot is a storm.",
  "Venus is the hottest planet although Mercury is nearer to the Sun.",
  "Red pandas live in the forests of the eastern Himalayas.",
  "The fourth planet from the Sun is known for its colour, which is that of rust.",
  "火星は赤い惑星と呼ばれる。",
  "يُعرف المريخ باسم الكوكب الأحمر.",
].join("\n\n");
