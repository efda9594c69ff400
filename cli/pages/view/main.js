// Starts everything and opens what the page carries.

startTheme();
startChoices();
startSlider();
startText();
startBars();
startChart();
startStats();
startPng();
startFiles();

const carried = JSON.parse(byId("files").textContent);
openTexts(carried.files);
if (carried.live) startLive(carried.live);
