// Dark or light: as the system says, until somebody says otherwise here.

const THEME = "streamguard-theme";
const NAMES = { "": "System colours", light: "Light", dark: "Dark" };
const ORDER = ["", "dark", "light"];

/** Prepares the switch. */
export function prepareTheme() {
  const button = document.getElementById("theme");
  let theme = "";
  try {
    theme = localStorage.getItem(THEME) ?? "";
  } catch {
    // Nothing is kept here; the system's colours then.
  }
  const show = () => {
    if (!(theme in NAMES)) theme = "";
    if (theme === "") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = NAMES[theme];
    button.setAttribute("aria-label", `Colours: ${NAMES[theme]}`);
  };
  button.addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      // It holds until the page is left.
    }
    show();
  });
  show();
}
